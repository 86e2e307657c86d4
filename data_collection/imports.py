"""Reads what other programs have collected: the original's search trees, and conversations.

A tree is a nested JSON object, one per node, as the released code of the paper writes it::

    {"question": "...", "state": {"thought": "...", "action": "...", "observation": "..."},
     "visits": 3, "value": 0.5, "reward": 0, "is_terminal": false, "children": [...]}

A conversation pair has three lists of ``{"from": "human" | "gpt" | "system", "value": "..."}``::

    {"id": "...", "prompt": [...], "chosen": [...], "rejected": [...]}

A file holds one object, a list of them, or one per line. What does not fit is an error that names
the entry; nothing is left out in silence.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_collection.iterations import TreeEnd, TreeHeader
from data_collection.pair_draft import DrawnPair
from data_collection.tree import ROOT, SearchTree
from data_collection.tree_file import StoredTree, tree_id_of
from lit_qagent.core.errors import DataError
from lit_qagent.core.pairs import ChatMessages, PreferencePair
from lit_qagent.core.records import Message, Observation, Step

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_TRUNCATION_REWARD = -1.0


def import_settings(path: Path, environment: str) -> dict[str, Any]:
    """Return the lineage of an imported file, in the form of a store's settings."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "environment": {"name": environment, "version": "imported"},
        "policy": {"policy": "imported", "file": path.name, "sha256": digest},
        "sampling": {},
        "search": {},
        "prompt": {"version": "imported"},
        "seed": 0,
    }


def read_trees(path: Path) -> Iterator[StoredTree]:
    """Read search trees of the original.

    Raises:
        DataError: The file cannot be read, or a node is not in the form above.
    """
    for number, record in enumerate(_records(path), start=1):
        where = f"{path}, tree {number}"
        try:
            yield _tree_of(record, where)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _unlike(where, error) from error


def read_conversations(path: Path, *, environment: str, head_messages: int) -> list[DrawnPair]:
    """Read pairs in the form of conversations; they carry no values, so 1 and 0 stand for them.

    Args:
        path: The file.
        environment: Name of the world, for the labels.
        head_messages: How many messages of each prompt come before the first step taken.

    Raises:
        DataError: The file cannot be read, or an entry is not in the form above.
    """
    pairs = []
    for number, record in enumerate(_records(path), start=1):
        where = f"{path}, pair {number}"
        try:
            pairs.append(_pair_of(record, number, environment, head_messages))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _unlike(where, error) from error
    return pairs


def _records(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); give a JSON file") from error
    try:
        whole = json.loads(text)
    except ValueError:
        return _lines(path, text)
    records: list[Any] = whole if isinstance(whole, list) else [whole]
    if not records:
        raise DataError(f"{path} holds an empty list; there is nothing to import")
    return records


def _lines(path: Path, text: str) -> list[Any]:
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number} is not JSON ({error}); give one JSON object, a list "
                    "of them, or one per line"
                ) from error
    if not records:
        raise DataError(f"{path} is empty; there is nothing to import")
    return records


def _tree_of(record: Mapping[str, Any], where: str) -> StoredTree:
    question = record["question"]
    if not isinstance(question, str) or not question.strip():
        raise ValueError("question is empty")
    task_id = str(record.get("id", question))
    tree = SearchTree(truncation_reward=_truncation_reward(record))
    waiting = [(ROOT, record)]
    while waiting:
        index, node = waiting.pop(0)
        tree.nodes[index].visits = int(node["visits"])
        tree.nodes[index].value = float(node["value"])
        for child in node["children"]:
            try:
                added = tree.add(index, _step_of(child))
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            waiting.append((added.index, child))
    header = TreeHeader(
        tree_id=tree_id_of(task_id),
        task_id=task_id,
        split="imported",
        seed=0,
        head=(Message(role="user", content=question),),
        first_observation=question,
    )
    end = TreeEnd(reason="iterations", num_iterations=0, num_nodes=len(tree.nodes))
    return StoredTree(header=header, iterations=(), end=end, tree=tree, is_torn=False)


def _truncation_reward(record: Mapping[str, Any]) -> float:
    """Return the negative reward of cut episodes in a tree, which there is one of at most."""
    found = {
        float(node["reward"]) for node in _nodes(record) if node.get("reward") and _is_cut(node)
    }
    if len(found) > 1:
        raise ValueError(f"episodes were cut with several rewards: {sorted(found)}")
    return found.pop() if found else _TRUNCATION_REWARD


def _nodes(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    waiting = [record]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node["children"]


def _is_cut(node: Mapping[str, Any]) -> bool:
    return bool(node["is_terminal"]) and float(node["reward"]) < 0


def _step_of(node: Mapping[str, Any]) -> Step:
    state = node["state"]
    action, thought = str(state["action"]), str(state.get("thought") or "")
    is_terminal, is_cut = bool(node["is_terminal"]), _is_cut(node)
    return Step(
        action=f"Thought: {thought}\nAction: {action}" if thought else action,
        observation=Observation(text=str(state.get("observation") or "")),
        reward=float(node["reward"]) if is_terminal and not is_cut else 0.0,
        terminated=is_terminal and not is_cut,
        truncated=is_cut,
    )


def _pair_of(
    record: Mapping[str, Any], number: int, environment: str, head_messages: int
) -> DrawnPair:
    prompt = _messages(record["prompt"])
    chosen, rejected = _messages(record["chosen"]), _messages(record["rejected"])
    if prompt[-1]["role"] == "assistant":
        raise ValueError("the prompt ends with the agent's own message")
    if chosen[0]["role"] != "assistant" or rejected[0]["role"] != "assistant":
        raise ValueError("chosen and rejected must begin with the agent's message")
    num_turns = len(prompt) - head_messages
    if num_turns < 0 or num_turns % 2:
        raise ValueError(
            f"{len(prompt)} prompt messages with {head_messages} before the first step leave no "
            "whole steps; set --head_messages"
        )
    task_id = str(record.get("id", number))
    pair = PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        task_id=task_id,
        tree_id=tree_id_of(task_id),
        depth=num_turns // 2,
        q_chosen=1.0,
        q_rejected=0.0,
        visits_chosen=0,
        visits_rejected=0,
        rule="imported",
        environment=environment,
        prompt_version="imported",
    )
    return DrawnPair(pair, is_chosen_valid=True, is_rejected_valid=True)


def _messages(turns: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> ChatMessages:
    listed = [turns] if isinstance(turns, Mapping) else list(turns)
    messages = []
    for turn in listed:
        if turn["from"] not in _ROLES:
            raise ValueError(f"'from' must be one of {', '.join(_ROLES)}, got {turn['from']!r}")
        if not isinstance(turn["value"], str) or not turn["value"].strip():
            raise ValueError("a message is empty")
        messages.append({"role": _ROLES[turn["from"]], "content": turn["value"]})
    if not messages:
        raise ValueError("a list of messages is empty")
    return messages


def _unlike(where: str, error: Exception) -> DataError:
    return DataError(
        f"{where} is not in the form that is read ({type(error).__name__}: {error}); "
        "data_collection/imports.py shows it"
    )
