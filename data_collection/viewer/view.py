"""From a tree store to one page."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_collection.store import SUMMARY_FILE, TreeStore
from data_collection.tree_file import StoredTree, read_tree
from data_collection.viewer.encoding import Texts, encode_damaged, encode_tree, plain_settings
from data_collection.viewer.learned import TreeScorer
from data_collection.viewer.marks import StoredPairs, mark_tree, read_stored_pairs
from data_collection.viewer.page import make_page, write_page
from lit_qagent.agents.selection import Scorer
from lit_qagent.core.errors import DataError, StoreError


class DamagedTree(NamedTuple):
    """A tree that cannot be read."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """What a page shows.

    Attributes:
        outcomes: How the searches went: word to count.
        num_nodes: Nodes of all trees.
        damaged: Trees that could not be read.
        num_pairs: Pairs whose actions are marked; None without pairs.
        num_lost_pairs: Pairs with an action that no tree of the store has.
        num_too_long: Actions that the Q-model's context was too short for.
        num_bytes: Size of the page.
    """

    outcomes: Mapping[str, int]
    num_nodes: int
    damaged: tuple[DamagedTree, ...]
    num_pairs: int | None
    num_lost_pairs: int
    num_too_long: int
    num_bytes: int = 0

    def text(self) -> str:
        """Return the counts as lines for people."""
        outcomes = ", ".join(f"{word}: {count}" for word, count in sorted(self.outcomes.items()))
        lines = [
            f"{sum(self.outcomes.values())} trees ({outcomes}), {self.num_nodes} nodes, "
            f"{self.num_bytes / 1e6:.1f} MB"
        ]
        if self.num_pairs is not None:
            lines.append(f"{self.num_pairs} pairs marked")
        if self.num_lost_pairs:
            lines.append(f"{self.num_lost_pairs} pairs have actions that are in none of the trees")
        if self.num_too_long:
            lines.append(f"{self.num_too_long} actions are too long for the Q-model")
        lines += [f"not readable: {each.reason}" for each in self.damaged]
        return "".join(f"  {line}\n" for line in lines)


@dataclass(kw_only=True)
class _Draft:
    """A page while it is made."""

    pairs: StoredPairs | None
    scorer: TreeScorer | None
    texts: Texts = field(default_factory=Texts)
    rows: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[DamagedTree] = field(default_factory=list)


def write_view(
    store: TreeStore, output: Path, *, pairs: Path | None = None, scorer: Scorer | None = None
) -> Viewed:
    """Write a store's page; trees that cannot be read are listed with the reason.

    Args:
        store: The trees.
        output: The page; an older one is replaced.
        pairs: Folder of pairs made of these trees, to mark what is chosen and rejected.
        scorer: The Q-model whose values are shown beside those of the search.

    Raises:
        DataError: The store has no tree, or the pairs cannot be read.
        StoreError: No store, or the page cannot be written.
    """
    settings = store.settings()
    paths = store.paths()
    if not paths:
        raise DataError(
            f"the tree store {store.folder} has no tree yet; "
            "run 'python -m data_collection collect' first"
        )
    draft = _Draft(
        pairs=None if pairs is None else read_stored_pairs(pairs),
        scorer=None if scorer is None else TreeScorer(scorer, len(paths)),
    )
    asyncio.run(_add_all(draft, paths, settings["search"]["truncation_reward"]))
    viewed = _count(draft)
    data = {
        "facts": _facts(settings, viewed, _summary(store.folder)),
        "settings": plain_settings(settings),
        "pairs": None if draft.pairs is None else draft.pairs.rule,
        "learned": scorer is not None,
        "strings": draft.texts.all,
        "trees": draft.rows,
    }
    page = make_page(data, f"Search trees of {settings['environment']['name']}: {store.folder}")
    return Viewed(**{**vars(viewed), "num_bytes": write_page(output, page)})


async def _add_all(draft: _Draft, paths: list[Path], truncation_reward: float) -> None:
    """Read, score and encode one tree after the other; a store may be larger than the memory."""
    with draft.scorer.live() if draft.scorer else nullcontext():
        for path in paths:
            tree = _read(path, truncation_reward)
            if isinstance(tree, StoredTree):
                await _add(draft, tree)
            else:
                draft.damaged.append(tree)
                draft.rows.append(encode_damaged(*tree))


def _read(path: Path, truncation_reward: float) -> StoredTree | DamagedTree:
    try:
        return read_tree(path, truncation_reward=truncation_reward)
    except (DataError, StoreError) as error:
        return DamagedTree(path.stem, str(error))
    except OSError as error:
        return DamagedTree(path.stem, f"{path} cannot be read ({error.strerror})")


async def _add(draft: _Draft, tree: StoredTree) -> None:
    marks = None
    if draft.pairs is not None:
        marks = mark_tree(tree.tree, draft.pairs.by_tree.get(tree.header.tree_id, ()))
    learned = None if draft.scorer is None else await draft.scorer.score(tree)
    draft.rows.append(encode_tree(tree, draft.texts, marks, learned))


def _count(draft: _Draft) -> Viewed:
    num_pairs = sum(row["pairs"] for row in draft.rows)
    return Viewed(
        outcomes=Counter(row["outcome"] for row in draft.rows),
        num_nodes=sum(len(row["p"]) for row in draft.rows),
        damaged=tuple(draft.damaged),
        num_pairs=None if draft.pairs is None else num_pairs,
        num_lost_pairs=0 if draft.pairs is None else draft.pairs.num_pairs - num_pairs,
        num_too_long=0 if draft.scorer is None else draft.scorer.num_too_long,
    )


def _summary(folder: Path) -> dict[str, Any]:
    """Return what the last run of collect counted; nothing if it has not ended in order."""
    try:
        summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _facts(settings: Mapping[str, Any], viewed: Viewed, summary: Mapping[str, Any]) -> list[str]:
    """Return the lines at the head of the page."""
    policy, search = settings["policy"], settings["search"]
    facts = [
        f"world {settings['environment']['name']} {settings['environment']['version']}",
        f"policy {policy.get('model') or policy.get('policy') or policy.get('name') or 'unnamed'}",
        f"search {search.get('variant', 'uct')}, {search['num_iterations']} iterations of "
        f"{search['num_candidates']} candidates",
        f"{sum(viewed.outcomes.values()):,} trees, {viewed.num_nodes:,} nodes",
    ]
    if viewed.num_pairs is not None:
        facts.append(f"{viewed.num_pairs:,} pairs marked")
    if viewed.num_lost_pairs:
        facts.append(f"{viewed.num_lost_pairs:,} pairs whose actions are in none of these trees")
    if viewed.num_too_long:
        facts.append(f"{viewed.num_too_long:,} actions too long for the Q-model")
    if summary.get("not_started"):
        reasons = "; ".join(map(str, summary.get("failure_reasons", {})))
        facts.append(f"{summary['not_started']} tasks could not start ({reasons})")
    return facts
