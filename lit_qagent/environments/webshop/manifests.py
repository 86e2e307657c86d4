"""Which goals are for training and which for testing: the known lists, and a user's own.

A manifest is a JSON file: ``splits`` maps names to goal indices, ``num_goals`` and ``goals`` say
for which order of which goals they were drawn, ``sha256`` maps names to hashes of the lists.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import ConfigError, DataError

_FOLDER = Path(__file__).parent
SHIPPED = ("eto", "paper")
_NUM_TEST = 500
_NUM_VALID = 1000
# Held-out splits first: a goal belongs to the first that has it.
_HELD_OUT = ("test", "valid", "dev")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Splits as lists of goal indices.

    Attributes:
        name: ``official``, ``eto``, ``paper``, or the file's path.
        splits: Split name to goal indices, each once, in the list's order.
        repeated: Split name to the number of indices that came again and were left out.
    """

    name: str
    splits: Mapping[str, Sequence[int]]
    repeated: Mapping[str, int] = field(default_factory=dict)

    def held_out_before(self, split: str) -> list[str]:
        """Return the splits whose goals this one must not have."""
        held_out = [name for name in _HELD_OUT if name in self.splits]
        return held_out[: held_out.index(split)] if split in held_out else held_out

    def shared(self, split: str) -> dict[int, str]:
        """Return the goals of a split that are held out, with the split that holds them out."""
        owner: dict[int, str] = {}
        for name in self.held_out_before(split):
            for index in self.splits[name]:
                owner.setdefault(index, name)
        return {index: owner[index] for index in self.splits[split] if index in owner}

    def sha256(self) -> str:
        """Return a hash of every list; of a range, its ends stand for its millions of goals."""
        lists = {
            name: hash_indices(str(indices) if isinstance(indices, range) else list(indices))
            for name, indices in self.splits.items()
        }
        return hash_indices(dict(sorted(lists.items())))


def load_manifest(name: str, *, goals: str, num_goals: int) -> Manifest:
    """Return splits by name or from a file, checked against the goals there are.

    Args:
        name: ``official``, ``eto``, ``paper`` or the path of a manifest.
        goals: ``human`` or ``synthetic``, the goals there are.
        num_goals: How many.

    Raises:
        ConfigError: The splits are of other goals than these.
        DataError: The manifest is missing, damaged, or names a goal that is not there.
    """
    if name == "official":
        return Manifest(name=name, splits=_official(goals, num_goals))
    path = _FOLDER / f"splits_{name}.json" if name in SHIPPED else Path(name)
    record = _read(path)
    made_for = (record.get("goals", goals), record.get("num_goals", num_goals))
    if made_for != (goals, num_goals):
        raise ConfigError(
            f"webshop splits {name!r} are lists of {made_for[1]} {made_for[0]} goals, but the "
            f"files give {num_goals} {goals} goals; the known lists need the full files "
            "(items_shuffle.json, items_ins_v2.json, items_human_ins.json) and goals: human; "
            "for other files set splits: official, or give a manifest of your own"
        )
    lists = {split: _check_list(path, record, split, num_goals) for split in record["splits"]}
    splits = {split: tuple(dict.fromkeys(indices)) for split, indices in lists.items()}
    repeated = {
        split: len(indices) - len(splits[split])
        for split, indices in lists.items()
        if len(indices) > len(splits[split])
    }
    return Manifest(name=name, splits=splits, repeated=repeated)


def make_manifest(splits: Mapping[str, Sequence[int]], *, goals: str, num_goals: int) -> str:
    """Return the text of a manifest.

    Args:
        splits: Split name to goal indices.
        goals: ``human`` or ``synthetic``.
        num_goals: How many goals the indices count.
    """
    record = {
        "goals": goals,
        "num_goals": num_goals,
        "sha256": {split: hash_indices(list(indices)) for split, indices in splits.items()},
        "splits": {split: list(indices) for split, indices in splits.items()},
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n"


def hash_indices(content: object) -> str:
    """Return the hash that a manifest has of a list."""
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _official(goals: str, num_goals: int) -> dict[str, Sequence[int]]:
    held_out = _NUM_TEST + (_NUM_VALID if goals == "human" else 0)
    everything = range(num_goals)
    splits = {"train": everything[held_out:], "test": everything[:_NUM_TEST]}
    if goals == "human":
        splits["valid"] = everything[_NUM_TEST:held_out]
    return dict(splits)


def _read(path: Path) -> Mapping[str, Any]:
    remedy = f"choose one of official, {', '.join(SHIPPED)}, or a manifest with 'splits'"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read webshop splits {path}: {error.strerror}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"webshop splits {path} are not valid JSON ({error}); {remedy}") from error
    if not isinstance(record, Mapping) or not isinstance(record.get("splits"), Mapping):
        raise DataError(f"webshop splits {path} have no object 'splits'; {remedy}")
    if not record["splits"]:
        raise DataError(f"webshop splits {path} name no split; {remedy}")
    return record


def _check_list(path: Path, record: Mapping[str, Any], split: str, num_goals: int) -> list[int]:
    where = f"webshop splits {path}, split {split!r}"
    indices = record["splits"][split]
    if not isinstance(indices, list) or not indices:
        raise DataError(f"{where}: expected a list of goal indices, got {repr(indices)[:80]}")
    for place, index in enumerate(indices):
        if type(index) is not int or not 0 <= index < num_goals:
            raise DataError(
                f"{where}, entry {place}: goal {repr(index)[:80]} is out of range; "
                f"there are {num_goals} goals, numbered from 0"
            )
    hashes = record.get("sha256") or {}
    if split in hashes and hashes[split] != hash_indices(indices):
        raise DataError(f"{where}: the list does not have the hash that the file gives for it")
    return indices
