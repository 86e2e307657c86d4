"""From a tree store to a folder of preference pairs."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_collection.filters import PairFilter
from data_collection.import_files import import_settings, leave_out_empty
from data_collection.imported_conversations import HEAD_MESSAGES, read_conversations
from data_collection.imported_trees import read_trees
from data_collection.pair_draft import DrawnPair, Labels
from data_collection.pair_folder import write_pair_folder
from data_collection.rules import RULES, PairRule
from data_collection.store import TreeStore
from data_collection.tree_file import StoredTree
from lit_qagent.core.errors import ConfigError, DataError, OverlapError
from lit_qagent.core.pairs import PAIR_SCHEMA_VERSION, PairCard, PreferencePair


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """The pairs of a store, before they are written.

    Attributes:
        pairs: In the order of the trees, then of depth.
        card: Where they come from; its hash is still empty.
        num_invalid_chosen: Chosen actions that the world could not carry out.
        num_invalid_rejected: Rejected ones.
        num_unfinished: Trees read that their search has not ended yet.
        num_torn: Half-written iterations left out.
        num_evaluation_tasks: Evaluation tasks compared with; None if none were given.
    """

    pairs: tuple[PreferencePair, ...]
    card: PairCard
    num_invalid_chosen: int
    num_invalid_rejected: int
    num_unfinished: int
    num_torn: int
    num_evaluation_tasks: int | None


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a file of another program holds.

    Attributes:
        form: ``trees`` (nested JSON of the original) or ``conversations`` (pairs of from/value).
        environment: Name of the world.
        rule: How pairs are picked from trees.
        head_messages: How many messages of a conversation come before the first step.
    """

    form: Literal["trees", "conversations"]
    environment: str
    rule: str = "paper"
    head_messages: int = HEAD_MESSAGES


@dataclass(kw_only=True)
class _Found:
    """What a rule made of all trees."""

    pairs: list[DrawnPair] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)
    task_ids: list[str] = field(default_factory=list)
    num_unfinished: int = 0
    num_torn: int = 0


def build_pairs(
    store: TreeStore,
    *,
    rule: str = "paper",
    keep: PairFilter | None = None,
    evaluation_ids: Collection[str] | None = None,
) -> PairSet:
    """Extract the pairs of all trees, finished or not.

    Args:
        store: The trees.
        rule: Name of a rule in `RULES`.
        keep: Which of them to keep; None keeps all.
        evaluation_ids: Ids of tasks that will be evaluated on.

    Raises:
        OverlapError: An evaluation task was searched.
        DataError: The store has no tree, or its trees give no pair.
        ConfigError: No such rule.
    """
    settings = store.settings()
    found = _extract(store.trees(), _rule(rule), settings)
    if not found.task_ids:
        raise DataError(
            f"the tree store {store.folder} has no tree yet; "
            "run 'python -m data_collection collect' first"
        )
    return _finish(found, store.folder, settings, rule, keep or PairFilter(), evaluation_ids)


def import_pairs(
    path: Path,
    source: Source,
    *,
    keep: PairFilter | None = None,
    evaluation_ids: Collection[str] | None = None,
) -> PairSet:
    """Make a pair set of what another program has collected.

    Args:
        path: The file, or for trees also a folder of files.
        source: What is in it.
        keep: Which pairs to keep; None keeps all.
        evaluation_ids: Ids of tasks that will be evaluated on.

    Raises:
        OverlapError: An evaluation task is among those of the file.
        DataError: The file is not in a form that is read, or gives no pair.
        ConfigError: No such rule.
    """
    if source.form == "trees":
        rule = source.rule
        settings = import_settings(path, source.environment)
        found = _extract(read_trees(path), _rule(rule), settings)
    else:
        rule = "imported"
        pairs = read_conversations(
            path, environment=source.environment, head_messages=source.head_messages
        )
        settings = import_settings(path, source.environment)
        task_ids = list(dict.fromkeys(each.pair.task_id for each in pairs))
        found = _Found(pairs=pairs, task_ids=task_ids)
    found.pairs = leave_out_empty(found.pairs, found.removed)
    return _finish(found, path, settings, rule, keep or PairFilter(), evaluation_ids)


def _rule(name: str) -> PairRule:
    if name not in RULES:
        raise ConfigError(f"rule must be one of {', '.join(RULES)}, got {name!r}")
    return RULES[name]


def _finish(
    found: _Found,
    source: Path,
    settings: Mapping[str, Any],
    rule: str,
    keep: PairFilter,
    evaluation_ids: Collection[str] | None,
) -> PairSet:
    """Filter, check and label what was found."""
    _refuse_overlap(found.task_ids, evaluation_ids)
    drawn = keep.keep(found.pairs, found.removed)
    if not drawn:
        raise _no_pairs(source, found)
    kept = [each.pair for each in drawn]
    return PairSet(
        pairs=tuple(kept),
        card=_make_card(found, kept, settings, {"name": rule, **keep.settings()}),
        num_invalid_chosen=sum(not each.is_chosen_valid for each in drawn),
        num_invalid_rejected=sum(not each.is_rejected_valid for each in drawn),
        num_unfinished=found.num_unfinished,
        num_torn=found.num_torn,
        num_evaluation_tasks=None if evaluation_ids is None else len(set(evaluation_ids)),
    )


def write_pairs(pair_set: PairSet, folder: Path) -> PairCard:
    """Write the folder that training and TRL read; return its card, with the hash of the data.

    Raises:
        StoreError: The folder holds something else; nothing is overwritten.
    """
    return write_pair_folder(
        folder,
        pair_set.pairs,
        pair_set.card,
        notes={
            "Chosen actions that the world could not carry out": pair_set.num_invalid_chosen,
            "Rejected actions that the world could not carry out": pair_set.num_invalid_rejected,
            "Trees still unfinished": pair_set.num_unfinished,
            "Half-written iterations left out": pair_set.num_torn,
            "Evaluation tasks compared with": _or_none_given(pair_set.num_evaluation_tasks),
            "Searched tasks among them": _or_none_given(
                None if pair_set.num_evaluation_tasks is None else 0
            ),
        },
    )


def _or_none_given(count: int | None) -> str:
    return "none given" if count is None else str(count)


def _extract(trees: Iterable[StoredTree], rule: PairRule, settings: Mapping[str, Any]) -> _Found:
    """Read trees one by one; a store may be larger than the memory."""
    environment = settings["environment"]
    version = f"{environment['version']}.{settings['prompt']['version']}"
    labels = Labels(environment=environment["name"], prompt_version=version)
    found = _Found()
    for tree in trees:
        extraction = rule.extract(tree, labels)
        found.pairs += extraction.pairs
        found.removed.update(extraction.removed)
        found.task_ids.append(tree.header.task_id)
        found.num_unfinished += tree.end is None
        found.num_torn += tree.is_torn
    return found


def _make_card(
    found: _Found,
    kept: Sequence[PreferencePair],
    settings: Mapping[str, Any],
    rule: Mapping[str, Any],
) -> PairCard:
    by_depth = Counter(pair.depth for pair in kept)
    return PairCard(
        schema_version=PAIR_SCHEMA_VERSION,
        pairs_hash="",
        rule=rule,
        environment=settings["environment"],
        policy=settings["policy"] | {"sampling": settings["sampling"]},
        search=settings["search"],
        prompt=settings["prompt"],
        seed=settings["seed"],
        task_ids=sorted(set(found.task_ids)),
        num_trees=len(found.task_ids),
        num_pairs=len(kept),
        pairs_by_depth={str(depth): by_depth[depth] for depth in sorted(by_depth)},
        removed={reason: count for reason, count in sorted(found.removed.items()) if count},
    )


def _refuse_overlap(task_ids: Iterable[str], evaluation_ids: Collection[str] | None) -> None:
    shared = sorted(set(task_ids) & set(evaluation_ids or ()))
    if shared:
        raise OverlapError(
            f"{len(shared)} of the searched tasks are evaluation tasks ({', '.join(shared[:5])}"
            f"{', ...' if len(shared) > 5 else ''}); none may be. Collect on another split, "
            "or evaluate on tasks that were not searched"
        )


def _no_pairs(folder: Path, found: _Found) -> DataError:
    counts = sorted(found.removed.items())
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts if count)
    return DataError(
        f"the {len(found.task_ids)} trees of {folder} give no pair "
        f"({reasons or 'nothing was left out'}). "
        "Collect with more search.num_iterations or search.num_candidates, with "
        "search.stop_at_success=false, on more tasks, or in a world that gives partial rewards; "
        "or set weaker filters if some are set"
    )
