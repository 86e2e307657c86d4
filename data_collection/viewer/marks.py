"""Which nodes of a tree are the chosen and rejected actions of preference pairs."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_collection.tree import ROOT, SearchTree
from lit_qagent.core.errors import DataError
from lit_qagent.core.pairs import CARD_FILE, PAIR_FILE, PAIR_SCHEMA_VERSION, ChatMessages

_COLUMNS = ("tree_id", "depth", "prompt", "chosen", "rejected", "q_chosen", "q_rejected")
_AGAIN = "make the pairs again with 'python -m data_collection pairs'"


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The pairs of one tree.

    Attributes:
        num_pairs: Pairs whose actions were both found in the tree.
        num_lost: Pairs of the tree with an action that it does not have.
        chosen: Node to the number of pairs in which it is the better one.
        rejected: Node to the number of pairs in which it is the worse one.
    """

    num_pairs: int = 0
    num_lost: int = 0
    chosen: Counter[int] = field(default_factory=Counter)
    rejected: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class StoredPairs:
    """The pairs of a folder, as far as marks need them.

    Attributes:
        rule: Name of the rule that made them.
        num_pairs: All of them.
        by_tree: Tree id to its pairs.
    """

    rule: str
    num_pairs: int
    by_tree: Mapping[str, Sequence[Mapping[str, Any]]]


def read_stored_pairs(folder: Path) -> StoredPairs:
    """Read a folder that ``pairs`` wrote.

    Raises:
        DataError: It is none, or one of another schema.
    """
    # Only this function needs it, and it takes time to import.
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        version, rule = card["schema_version"], str(card["rule"]["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is no folder of pairs: {CARD_FILE} cannot be read "
            f"({type(error).__name__}: {error}); name one that 'pairs' wrote, or {_AGAIN}"
        ) from error
    if version != PAIR_SCHEMA_VERSION:
        raise DataError(
            f"{folder} has schema version {version}, this program reads {PAIR_SCHEMA_VERSION}; "
            f"{_AGAIN}"
        )
    path = folder / PAIR_FILE
    try:
        rows = pq.read_table(path, columns=list(_COLUMNS)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); {_AGAIN}") from error
    by_tree: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_tree[row["tree_id"]].append(row)
    return StoredPairs(rule=rule, num_pairs=len(rows), by_tree=by_tree)


def mark_tree(tree: SearchTree, pairs: Iterable[Mapping[str, Any]]) -> Marks:
    """Find the actions of pairs in their tree."""
    marks = Marks()
    num_pairs = num_lost = 0
    for pair in pairs:
        turns = pair["prompt"][len(pair["prompt"]) - 2 * pair["depth"] :]
        chosen = _nodes_of(tree, turns, pair["chosen"], pair["q_chosen"])
        rejected = _nodes_of(tree, turns, pair["rejected"], pair["q_rejected"])
        if not chosen or not rejected:
            num_lost += 1
            continue
        num_pairs += 1
        # Whole episodes may begin alike; what they share is neither better nor worse.
        marks.chosen.update(set(chosen) - set(rejected))
        marks.rejected.update(set(rejected) - set(chosen))
    return Marks(
        num_pairs=num_pairs, num_lost=num_lost, chosen=marks.chosen, rejected=marks.rejected
    )


def _nodes_of(
    tree: SearchTree, turns: ChatMessages, preferred: ChatMessages, q: float
) -> list[int]:
    """Return the nodes of an action, or of an episode as far as it runs in the tree.

    Nodes with the same texts may stand beside each other; of them those of the pair's value count.
    """
    before = _walk(tree, [ROOT], turns)
    found = _walk(tree, before, preferred[:1])
    exact = [node for node in found if tree.q_hat(node) == q]
    path = (exact or found)[:1]
    if len(preferred) > 1:
        # An episode: its further steps, up to where a rollout left the tree.
        for end in range(3, len(preferred) + 1, 2):
            path += _walk(tree, before, preferred[:end])[:1]
    return path


def _walk(tree: SearchTree, starts: list[int], messages: ChatMessages) -> list[int]:
    """Return the nodes that actions, each followed by its observation, lead to."""
    places = starts
    for position in range(0, len(messages), 2):
        action = messages[position]["content"]
        seen = messages[position + 1]["content"] if position + 1 < len(messages) else None
        children = [tree[child] for place in places for child in tree[place].children]
        places = [
            node.index
            for node in children
            if node.step is not None
            and node.step.action == action
            and (seen is None or node.step.observation.text == seen)
        ]
    return places
