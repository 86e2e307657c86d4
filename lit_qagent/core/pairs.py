"""The preference pair: the one contract between the collector and training.

On disk a set of pairs is a folder: ``data/train-00000-of-00001.parquet`` (one row per pair, the
fields of `PreferencePair` as columns; TRL's conversational preference format plus labels),
``card.json`` (lineage and counts, see `PairCard`) and ``README.md`` (the card for people, whose
header names the data file, so that ``datasets.load_dataset(folder)`` reads it).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PAIR_SCHEMA_VERSION = 1
NAMELESS = "foreign-"
"""What the task ids begin with that data without any were given."""
PAIR_FILE = "data/train-00000-of-00001.parquet"
CARD_FILE = "card.json"

ChatMessages = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """Two sibling actions, or whole episodes, after one history, the better one first.

    Attributes:
        prompt: The history's messages; the last ``2 * depth`` of them are steps taken, the rest
            is the head (system message, examples, task).
        chosen: The better action, one assistant message; of a whole episode, its actions with
            the observations (user messages) between them.
        rejected: The worse one.
        task_id: The task searched.
        tree_id: The search tree the pair comes from.
        depth: Steps taken before the action, 0 at the root.
        q_chosen: ``Q_hat`` of the chosen action.
        q_rejected: ``Q_hat`` of the rejected action.
        visits_chosen: Visits behind ``q_chosen``.
        visits_rejected: Visits behind ``q_rejected``.
        rule: Name of the rule that made the pair.
        environment: Name of the world.
        prompt_version: Version of the world's texts and of the prompt form.
    """

    prompt: ChatMessages
    chosen: ChatMessages
    rejected: ChatMessages
    task_id: str
    tree_id: str
    depth: int
    q_chosen: float
    q_rejected: float
    visits_chosen: int
    visits_rejected: int
    rule: str
    environment: str
    prompt_version: str


@dataclass(frozen=True, kw_only=True)
class PairCard:
    """Where a set of pairs comes from; JSON values only.

    Attributes:
        schema_version: `PAIR_SCHEMA_VERSION` of the writer.
        pairs_hash: SHA-256 of the parquet file.
        rule: Name of the pair rule, and its options.
        environment: `Environment.settings` of the world searched.
        policy: `Policy.settings` of the collecting policy.
        search: Settings of the search.
        prompt: Settings of the prompt.
        seed: Seed of the collection.
        task_ids: Every task searched, also those that gave no pair: none may be evaluated on.
        num_trees: Trees read.
        num_pairs: Pairs written.
        pairs_by_depth: Count of pairs at each depth.
        removed: What was left out, and why: reason to count.
    """

    schema_version: int
    pairs_hash: str
    rule: Mapping[str, Any]
    environment: Mapping[str, Any]
    policy: Mapping[str, Any]
    search: Mapping[str, Any]
    prompt: Mapping[str, Any]
    seed: int
    task_ids: list[str]
    num_trees: int
    num_pairs: int
    pairs_by_depth: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
