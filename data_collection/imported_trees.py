"""Reads the original's search trees.

It writes one JSON file per task, named after it; the file is the root of the tree::

    {"state": {"action": "", "observation": ""}, "question": "...", "visits": 3, "value": 0.5,
     "depth": 0, "is_terminal": false, "reward": 0, "em": 0, "children": [...] or null,
     "messages": [{"role": "user", "content": "..."}, ...], "best_trajectory_index_list": [0, 2],
     "best reward": 1, "best child reward": 1, ...}

Every child has the same keys up to ``messages``, which is null there. An action is the whole
message of the agent. The messages of the root are the instructions, their acknowledgement, solved
examples and last the task.

What does not fit is an error that names the entry; nothing is left out in silence.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_collection.import_files import files_of, records_of, unlike
from data_collection.iterations import TreeEnd, TreeHeader
from data_collection.tree import ROOT, SearchTree
from data_collection.tree_file import StoredTree, tree_id_of
from lit_qagent.core.errors import DataError
from lit_qagent.core.records import Message, Observation, Step


@dataclass(kw_only=True, slots=True)
class ImportedTree(SearchTree):
    """A tree whose values are those of its file, also where they are no mean of outcomes.

    The original counts a failed answer as -1 once it was visited, and gives nodes of WebShop the
    reward of their step before any visit.
    """

    def q_hat(self, index: int) -> float | None:
        """Return the value in the file; None for a node that nothing is known of."""
        node = self[index]
        return node.value if node.visits or node.value or node.is_terminal else None


def read_trees(path: Path) -> Iterator[StoredTree]:
    """Read search trees of the original.

    A task is named by ``id`` if a tree has one, else by the file that holds it alone, else by its
    question.

    Raises:
        DataError: The file cannot be read, or a node is not in the form above.
    """
    for file in files_of(path):
        records = records_of(file)
        name = file.stem if len(records) == 1 else None
        for number, record in enumerate(records, start=1):
            where = f"{file}, tree {number}"
            try:
                yield _tree_of(record, name, where)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise unlike(where, error) from error


def _tree_of(record: Mapping[str, Any], name: str | None, where: str) -> StoredTree:
    question = record["question"]
    if not isinstance(question, str) or not question.strip():
        raise ValueError("question is empty")
    task_id = str(record.get("id", question if name is None else name))
    tree = ImportedTree(truncation_reward=_truncation_reward(record))
    # Depth first, as the original looks for its best end: of equal ends both take the first.
    waiting = [(ROOT, record)]
    while waiting:
        index, node = waiting.pop()
        if node is not record:
            try:
                index = tree.add(index, _step_of(node)).index
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
        tree.nodes[index].visits = int(node["visits"])
        tree.nodes[index].value = float(node["value"])
        waiting += [(index, child) for child in reversed(node["children"] or ())]
    header = TreeHeader(
        tree_id=tree_id_of(task_id),
        task_id=task_id,
        split="imported",
        seed=0,
        head=_head_of(record, question),
        first_observation=question,
    )
    end = TreeEnd(reason="iterations", num_iterations=0, num_nodes=len(tree.nodes))
    return StoredTree(header=header, iterations=(), end=end, tree=tree, is_torn=False)


def _head_of(record: Mapping[str, Any], question: str) -> tuple[Message, ...]:
    """Return the chat that the root was asked with; without one the question stands alone."""
    messages = record.get("messages") or [{"role": "user", "content": question}]
    head = tuple(Message(role=each["role"], content=each["content"]) for each in messages)
    if head[-1].role != "user":
        raise ValueError("the messages of the root must end with the task")
    return head


def _truncation_reward(record: Mapping[str, Any]) -> float:
    """Return the negative reward of ends in a tree, which there is one of at most."""
    found = {float(node["reward"]) for node in _nodes(record) if _is_cut(node)}
    if len(found) > 1:
        raise ValueError(f"episodes were cut with several rewards: {sorted(found)}")
    return found.pop() if found else 0.0


def _nodes(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    waiting = [record]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node["children"] or ()


def _is_cut(node: Mapping[str, Any]) -> bool:
    return bool(node["is_terminal"]) and float(node["reward"]) < 0


def _step_of(node: Mapping[str, Any]) -> Step:
    """Return a node's step; a negative reward before the end marks an action that was refused."""
    state = node["state"]
    action, thought = str(state["action"]), str(state.get("thought") or "")
    is_terminal, is_cut = bool(node["is_terminal"]), _is_cut(node)
    return Step(
        action=f"Thought: {thought}\nAction: {action}" if thought else action,
        observation=Observation(text=str(state.get("observation") or "")),
        reward=float(node["reward"]) if is_terminal and not is_cut else 0.0,
        terminated=is_terminal and not is_cut,
        truncated=is_cut,
        valid=float(node["reward"]) >= 0 or is_terminal,
    )
