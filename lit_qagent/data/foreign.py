"""Preference pairs in other programs' formats.

TRL's: ``prompt``, ``chosen`` and ``rejected`` as chat messages or as plain text; without ``prompt``
both answers begin with it, and so do conversations whose ``prompt`` is text. The original's: the
same with messages of ``from`` and ``value``. An answer may be a whole episode, the agent's and the
world's messages in turn.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.core.pairs import NAMELESS, ChatMessages, PreferencePair
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.packing import common_prefix
from lit_qagent.data.pairs import ROWS_AT_ONCE, are_equal, is_episode

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


class HubPart(NamedTuple):
    """Which rows of a set on the hub.

    Attributes:
        split: Name of a split, such as ``train_prefs``.
        subset: Name of a configuration; None is the set's only or default one.
        revision: Branch, tag or commit; None is the newest.
    """

    split: str = "train"
    subset: str | None = None
    revision: str | None = None


def read_rows(path: Path, *, streaming: bool = False, part: HubPart | None = None) -> Iterator[Any]:
    """Give the rows of a JSON, JSON lines or parquet file, or of a set on the hub, one by one.

    Args:
        path: File or hub id.
        streaming: Never hold more than a few rows.
        part: Of a set on the hub; None is its ``train`` split.

    Raises:
        ConfigError: A JSON list shall be streamed.
        DataError: No such file or set, or it cannot be read.
    """
    if path.suffix == ".jsonl":
        yield from _json_lines(path)
    elif path.suffix == ".json":
        if streaming:
            raise ConfigError(
                f"data.streaming cannot read {str(path)!r}, one JSON list, piece by piece; write "
                "it as JSON lines (.jsonl) or parquet, or set data.streaming to false"
            )
        found = _parsed(_text(path), str(path))
        if not isinstance(found, list):
            raise DataError(f"{str(path)!r} must hold a JSON list of pairs")
        yield from found
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        yield from _hub(str(path), streaming, part or HubPart())


def foreign_pairs(rows: Iterable[Any], where: str) -> Iterator[PreferencePair]:
    """Turn rows into pairs; the labels that they lack are 1 for the better action, 0 for the worse.

    Raises:
        DataError: A row is not a pair: it has neither format, an empty action, equal ones, or a
            label that is no number.
    """
    for number, row in enumerate(rows):
        yield _pair(row, f"{where} row {number}")


def _pair(row: Any, where: str) -> PreferencePair:  # noqa: ANN401 (any JSON value)
    if not isinstance(row, Mapping) or not {"chosen", "rejected"} <= row.keys():
        raise DataError(f"{where} has no chosen and rejected; give pairs in TRL's format")
    prompt, chosen, rejected = _parts(row, where)
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        if not is_episode(messages):
            raise DataError(
                f"{where}: {name} must be one assistant message after the prompt, or assistant and "
                "user messages in turn from an assistant's to an assistant's, got "
                f"{' '.join(message['role'] for message in messages) or 'nothing'}; mend or "
                "remove it"
            )
        if not any(message["content"].strip() for message in messages[::2]):
            raise DataError(f"{where} has an empty {name} action; remove it")
    if are_equal(chosen, rejected):
        raise DataError(f"{where} has equal chosen and rejected actions; remove it")
    num_head = _head_length(prompt, where)
    task = f"{NAMELESS}{derive_seed(json.dumps(prompt[:num_head], sort_keys=True)):010d}"
    return PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        task_id=str(row.get("task_id") or task),
        tree_id=str(row.get("tree_id") or task),
        depth=(len(prompt) - num_head) // 2,
        q_chosen=_number(row, "q_chosen", 1.0, where),
        q_rejected=_number(row, "q_rejected", 0.0, where),
        visits_chosen=_visits(row, "visits_chosen", where),
        visits_rejected=_visits(row, "visits_rejected", where),
        rule="foreign",
        environment="foreign",
        prompt_version="foreign",
    )


def _number(row: Mapping[str, Any], name: str, default: float, where: str) -> float:
    """Return a label; null is one that is not known, as in the columns of a parquet file."""
    value = row.get(name)
    try:
        number = default if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{where}: {name} must be a finite number, got {repr(value)[:80]}; mend it, or give "
            "null if it is not known"
        )
    return number


def _visits(row: Mapping[str, Any], name: str, where: str) -> int:
    number = _number(row, name, 1.0, where)
    if number < 0 or not number.is_integer():
        raise DataError(
            f"{where}: {name} must be a whole number >= 0, got {repr(row[name])[:80]}; mend it, "
            "or give null if it is not known"
        )
    return int(number)


def _parts(row: Mapping[str, Any], where: str) -> tuple[ChatMessages, ChatMessages, ChatMessages]:
    """Return prompt, chosen and rejected as messages."""
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            prompt, chosen, rejected = _common_text(chosen, rejected)
        chosen, rejected = ([{"role": "assistant", "content": x}] for x in (chosen, rejected))
    both = [_messages(side, where) for side in (chosen, rejected)]
    if isinstance(prompt, str):
        # As for TRL it is a copy of what conversations begin with, unless they only answer it.
        is_answered = all(side and side[0]["role"] == "assistant" for side in both)
        prompt = [{"role": "user", "content": prompt}] if is_answered else None
    if prompt is not None:
        return _messages(prompt, where), both[0], both[1]
    shared = common_prefix(both[0], both[1])
    while shared and any(not is_episode(side[shared:]) for side in both):
        shared -= 1  # equal actions are not prompt where what they led to differs
    return both[0][:shared], both[0][shared:], both[1][shared:]


def _messages(values: Any, where: str) -> ChatMessages:  # noqa: ANN401 (any JSON value)
    """Check chat messages of either format."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise DataError(f"{where}: expected chat messages, or text in all parts")
    found = []
    for value in values:
        whole = isinstance(value, Mapping)
        given = value.get("role", value.get("from")) if whole else None
        role = _ROLES.get(given) if isinstance(given, str) else None
        content = value.get("content", value.get("value")) if whole else None
        if role is None or not isinstance(content, str):
            raise DataError(
                f"{where}: a message needs role and content (or from and value), one of "
                f"{', '.join(_ROLES)}; got {str(value)[:80]}; mend or remove the row"
            )
        found.append({"role": role, "content": content})
    return found


def _common_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Part two texts after the last whole word that they begin with alike.

    Neither part is empty where one text begins with the other: the last word goes to both.

    Examples:
        >>> _common_text("Go? No thanks", "Go? No")
        ('Go?', 'No thanks', 'No')
    """
    shared = _whole_words(chosen[: common_prefix(chosen, rejected)])
    if not all(text[len(shared) :].strip() for text in (chosen, rejected)):
        shared = _whole_words(shared.rstrip())
    return shared.rstrip(), chosen[len(shared) :], rejected[len(shared) :]


def _whole_words(text: str) -> str:
    """Leave out what comes after the last space or end of a line."""
    return text[: max(text.rfind(" "), text.rfind("\n")) + 1]


def _head_length(prompt: ChatMessages, where: str) -> int:
    """Return how many messages come before the first step: up to the first user message.

    What follows must be steps, an assistant's and a user's message each; else all is head.
    """
    roles = [message["role"] for message in prompt]
    if "user" not in roles:
        raise DataError(f"{where} has no user message before the action; add the prompt")
    first = roles.index("user") + 1
    steps = roles[first:]
    regular = steps == ["assistant", "user"] * (len(steps) // 2)
    return first if regular else len(prompt)


def _json_lines(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parsed(line, f"{path} line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}); give a file of pairs") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}); give a file of pairs") from error


def _parsed(text: str, where: str) -> Any:  # noqa: ANN401 (any JSON value)
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where!r} is not JSON ({error}); mend or remove it") from error


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read as parquet ({error})") from error


def _hub(name: str, streaming: bool, part: HubPart) -> Iterator[Any]:
    from datasets import load_dataset

    try:
        yield from load_dataset(
            name, part.subset, split=part.split, revision=part.revision, streaming=streaming
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name!r} is neither a folder or file of pairs nor a set on the hub that can be "
            f"reached ({str(error)[:300]}); check the spelling, and give a set's split, subset and "
            "revision as {path: ..., split: ..., subset: ..., revision: ...}"
        ) from error
