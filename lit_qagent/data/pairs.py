"""Reads a folder of preference pairs and refuses anything that is not one."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError
from lit_qagent.core.pairs import (
    CARD_FILE,
    PAIR_FILE,
    PAIR_SCHEMA_VERSION,
    PairCard,
    PreferencePair,
)
from lit_qagent.core.records import History, Message, Role

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
ROWS_AT_ONCE = 256  # of a parquet file
_AGAIN = "make the pairs again with `python -m data_collection pairs`"


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """The pairs of a folder, in file order, and their card."""

    pairs: tuple[PreferencePair, ...]
    card: PairCard


def read_pairs(folder: Path) -> PairSet:
    """Read and check a folder of pairs.

    Raises:
        DataError: The folder or one of its files is missing, empty, corrupt, of another schema,
            or changed since its card was written.
    """
    card = check_folder(folder)
    pairs = tuple(iterate_pairs(folder))
    if not pairs:
        raise DataError(
            f"{str(folder / PAIR_FILE)!r} has no pairs; collect more tasks or use another pair "
            f"rule ({CARD_FILE} says what was removed: {dict(card.removed)})"
        )
    return PairSet(pairs=pairs, card=card)


def check_folder(folder: Path) -> PairCard:
    """Return the card of a folder whose data file is there and is the card's own.

    Raises:
        DataError: The folder or one of its files is missing, corrupt, of another schema, or
            changed since its card was written.
    """
    data_file = folder / PAIR_FILE
    if not folder.is_dir():
        raise DataError(
            f"pairs folder {str(folder)!r} does not exist; "
            "make it with `python -m data_collection pairs`"
        )
    if not data_file.is_file():
        raise DataError(f"pairs folder {str(folder)!r} has no {PAIR_FILE}; {_AGAIN}")
    card = read_card(folder)
    with data_file.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    _columns(data_file)
    if found != card.pairs_hash:
        raise DataError(
            f"{str(data_file)!r} has SHA-256 {found}, its card says {card.pairs_hash}: "
            f"the file was changed after it was made; {_AGAIN}"
        )
    return card


def iterate_pairs(folder: Path) -> Iterator[PreferencePair]:
    """Give the pairs of a folder one by one; a few rows are in memory.

    Raises:
        DataError: The data file is corrupt, or a row is not a pair.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    path = folder / PAIR_FILE
    names = _columns(path)
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=names):
            for row in batch.select(names).to_pylist():
                yield _pair(row, f"{str(path)!r} row {number}")
                number += 1


def read_card(folder: Path) -> PairCard:
    """Read the card of a folder of pairs.

    Raises:
        DataError: No card, not JSON, of another schema version, or with fields missing.
    """
    path = folder / CARD_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"pairs folder {str(folder)!r} has no {CARD_FILE}; {_AGAIN}") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} is not JSON ({error}); {_AGAIN}") from error
    if not isinstance(values, dict):
        raise DataError(f"{str(path)!r} must hold a JSON object; {_AGAIN}")
    version = values.get("schema_version")
    if version != PAIR_SCHEMA_VERSION:
        raise DataError(
            f"{str(path)!r} has schema version {version}, "
            f"this program reads {PAIR_SCHEMA_VERSION}; {_AGAIN}"
        )
    missing = sorted(_required(PairCard) - values.keys())
    if missing:
        raise DataError(f"{str(path)!r} lacks {', '.join(missing)}; {_AGAIN}")
    known = {field.name for field in fields(PairCard)}
    return PairCard(**{name: value for name, value in values.items() if name in known})


def is_episode(messages: Sequence[Mapping[str, str]]) -> bool:
    """Return whether messages are an action, or actions with an observation between each two.

    Examples:
        >>> is_episode([{"role": "assistant", "content": "look"}])
        True
        >>> is_episode([{"role": "user", "content": "You see a box."}])
        False
    """
    roles = [message["role"] for message in messages]
    return roles == ["assistant", "user"] * (len(roles) // 2) + ["assistant"]


def are_equal(left: Sequence[Mapping[str, str]], right: Sequence[Mapping[str, str]]) -> bool:
    """Return whether two episodes say the same, white space around messages aside."""
    return [m["content"].strip() for m in left] == [m["content"].strip() for m in right]


def pair_history(pair: PreferencePair) -> History:
    """Return the history of a pair: its last ``2 * depth`` messages are steps.

    Raises:
        DataError: The prompt has fewer messages than its depth says.
    """
    messages = tuple(_message(values) for values in pair.prompt)
    num_head = len(messages) - 2 * pair.depth
    if num_head < 1:
        raise DataError(
            f"a pair of task {pair.task_id!r} has depth {pair.depth}, so at least "
            f"{2 * pair.depth + 1} prompt messages, got {len(messages)}; {_AGAIN}"
        )
    return History(head=messages[:num_head], turns=messages[num_head:])


def _columns(path: Path) -> list[str]:
    """Return the columns of the parquet file to read, after a check that they are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read as parquet ({error}); {_AGAIN}") from error
    missing = sorted(_required(PreferencePair) - found)
    if missing:
        raise DataError(f"{str(path)!r} lacks the columns {', '.join(missing)}; {_AGAIN}")
    return [field.name for field in fields(PreferencePair)]


def _pair(row: Mapping[str, Any], where: str) -> PreferencePair:
    """Check a row's values and make it a pair."""
    empty = sorted(name for name, value in row.items() if value is None)
    if empty:
        raise DataError(f"{where} has no {', '.join(empty)}; {_AGAIN}")
    for name in ("prompt", "chosen", "rejected"):
        _check_messages(row[name], f"{where}, {name}")
    for name in ("chosen", "rejected"):
        if not is_episode(row[name]):
            raise DataError(
                f"{where}, {name} must be one assistant message, or assistant and user messages "
                f"in turn from an assistant's to an assistant's; {_AGAIN}"
            )
        if not any(message["content"].strip() for message in row[name][::2]):
            raise DataError(f"{where} has an empty {name} action; {_AGAIN}")
    if are_equal(row["chosen"], row["rejected"]):
        raise DataError(
            f"{where} has equal chosen and rejected actions "
            f"({row['chosen'][0]['content'][:80]!r}), which teach nothing; remove it, or {_AGAIN}"
        )
    return PreferencePair(**row)


def _check_messages(messages: Any, where: str) -> None:  # noqa: ANN401 (any parquet value)
    good = isinstance(messages, Sequence) and all(
        isinstance(message, Mapping)
        and message.get("role") in _ROLES
        and isinstance(message.get("content"), str)
        for message in messages
    )
    if not good or not messages:
        raise DataError(f"{where} must be a list of chat messages (role, content); {_AGAIN}")


def _message(values: Mapping[str, str]) -> Message:
    return Message(role=_ROLES[values["role"]], content=values["content"])


def _required(record: type[PairCard] | type[PreferencePair]) -> set[str]:
    return {
        field.name
        for field in fields(record)
        if field.default is MISSING and field.default_factory is MISSING
    }
