"""Trees as plain values for the page: parallel arrays, and every text once.

A tree is an object of arrays with one entry per node, the root first: ``p`` parent (-1 at the
root), ``a`` action, ``c`` the command in it, ``o`` observation (numbers of texts), ``n`` visits,
``v`` value, ``q`` ``Q_hat``, ``r`` reward, ``f`` flags (1 terminated, 2 truncated, 4 invalid,
8 exhausted), ``w`` and ``x`` in how many pairs the action is chosen and rejected, ``l`` learned Q
and ``u`` prior where there are any; ``m`` holds metrics by node. A rollout is its first node, what
it earned, and its texts in turn.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from data_collection.iterations import TreeEnd
from data_collection.pair_draft import find_best_end
from data_collection.summary import TreeCounts, count_tree
from data_collection.tree import Node
from data_collection.tree_file import StoredTree
from data_collection.viewer.marks import Marks
from lit_qagent.core.actions import parse_command

_TERMINATED, _TRUNCATED, _INVALID, _EXHAUSTED = 1, 2, 4, 8
_DECIMALS = 6
_END_REASONS = {
    "iterations": "ended at the limit of iterations",
    "exhausted": "ended as nothing was left to search",
    "success": "ended at the first full reward",
    "budget": "stopped by a budget; may be gone on with",
}
_TORN = "a half-written iteration at the end of its file was left out"


class Texts:
    """Texts by number, each once.

    Attributes:
        all: The texts; number 0 is the empty one.
    """

    def __init__(self) -> None:
        self.all = [""]
        self._numbers = {"": 0}

    def number(self, text: str) -> int:
        """Return the number of a text, a new one for a text not seen before."""
        found = self._numbers.setdefault(text, len(self.all))
        if found == len(self.all):
            self.all.append(text)
        return found


def encode_tree(
    stored: StoredTree,
    texts: Texts,
    marks: Marks | None = None,
    learned: Sequence[float | None] | None = None,
) -> dict[str, Any]:
    """Return a tree as plain values.

    Args:
        stored: The tree.
        texts: Where its texts go.
        marks: Which of its actions are chosen and rejected in pairs.
        learned: Learned Q of each node.
    """
    nodes = stored.tree.nodes
    counts = count_tree(stored)
    best_end = find_best_end(stored)
    marks = marks or Marks()
    encoded = {
        "id": stored.header.tree_id,
        "task": stored.header.task_id,
        "text": texts.number(stored.header.first_observation),
        "outcome": outcome_of(counts),
        "reason": reason_of(stored.end, is_torn=stored.is_torn),
        "best": _number(counts.best),
        "iterations": counts.iterations,
        "cost": [
            counts.cost.requests,
            counts.cost.prompt_tokens,
            counts.cost.generated_tokens,
        ],
        "end": best_end.node if best_end is not None else None,
        "pairs": marks.num_pairs,
        "head": [[each.role, texts.number(each.content)] for each in stored.header.head],
        "p": [-1 if node.parent is None else node.parent for node in nodes],
        **_texts_of(nodes, texts),
        "n": [node.visits for node in nodes],
        "v": [_number(node.value) for node in nodes],
        "q": [_number(stored.tree.q_hat(node.index)) for node in nodes],
        "r": [_number(node.step.reward) if node.step else 0 for node in nodes],
        "f": [_flags(node) for node in nodes],
        "w": [marks.chosen[node.index] for node in nodes],
        "x": [marks.rejected[node.index] for node in nodes],
        "m": {
            str(node.index): {name: _number(value) for name, value in node.step.metrics.items()}
            for node in nodes
            if node.step is not None and node.step.metrics
        },
        "rollouts": _rollouts(stored, texts),
        "notes": [
            [each.number, texts.number(each.reflection)]
            for each in stored.iterations
            if each.reflection
        ],
    }
    if any(node.prior is not None for node in nodes):
        encoded["u"] = [_number(node.prior) for node in nodes]
    if learned is not None:
        encoded["l"] = [_number(value) for value in learned]
    return encoded


def encode_damaged(name: str, reason: str) -> dict[str, Any]:
    """Return the place in the list of a tree that cannot be read."""
    return {
        "id": name,
        "task": name,
        "text": 0,
        "outcome": "damaged",
        "reason": reason,
        "best": None,
        "iterations": 0,
        "cost": [0, 0, 0],
        "end": None,
        "pairs": 0,
        "head": [],
        "m": {},
        "rollouts": [],
        "notes": [],
        **{key: [] for key in "pacnoqvrfwxl"},
    }


def outcome_of(counts: TreeCounts) -> str:
    """Return in one word how a search went; how it ended comes before what it found."""
    if counts.end is None:
        return "unfinished"
    if counts.end.reason == "failed":
        return "failed"
    if counts.is_success:
        return "solved"
    return "partial" if counts.best is not None and counts.best > 0 else "none"


def reason_of(end: TreeEnd | None, *, is_torn: bool) -> str:
    """Return in words why a search ended, or that it has not."""
    if end is None:
        words = "the search has not ended yet"
    elif end.failure is not None:
        failure = end.failure
        words = f"{failure.error} in iteration {failure.iteration}: {failure.message}"
    else:
        words = _END_REASONS.get(end.reason, end.reason)
    return f"{words}; {_TORN}" if is_torn else words


def _texts_of(nodes: Sequence[Node], texts: Texts) -> dict[str, list[int]]:
    actions, commands, observations = [0], [0], [0]
    for node in nodes[1:]:
        assert node.step is not None  # only the root has none
        actions.append(texts.number(node.step.action))
        commands.append(texts.number(parse_command(node.step.action) or node.step.action))
        observations.append(texts.number(node.step.observation.text))
    return {"a": actions, "c": commands, "o": observations}


def _flags(node: Node) -> int:
    flags = _EXHAUSTED * node.is_exhausted
    if node.step is not None:
        flags |= _TERMINATED * node.step.terminated | _TRUNCATED * node.step.truncated
        flags |= _INVALID * (not node.step.valid)
    return flags


def _rollouts(stored: StoredTree, texts: Texts) -> list[list[Any]]:
    rollouts = []
    for iteration in stored.iterations:
        if iteration.rollout:
            row: list[Any] = [iteration.evaluated, _number(iteration.reward)]
            for step in iteration.rollout:
                row += [texts.number(step.action), texts.number(step.observation.text)]
            rollouts.append(row)
    return rollouts


def _number(value: float | None) -> float | str | None:
    """Return a number that JSON has; what is no number is shown as a word."""
    if value is None or math.isfinite(value):
        return value if value is None else round(value, _DECIMALS)
    return str(value)


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for the page, numbers that JSON does not have as words."""

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return _number(value) if isinstance(value, float) else value

    return {name: plain(value) for name, value in settings.items()}
