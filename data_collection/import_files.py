"""Files of other programs: which there are, what they hold, and where they come from."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_collection.pair_draft import DrawnPair
from lit_qagent.core.errors import DataError

EMPTY_MESSAGE = "pairs_with_an_empty_message"


def import_settings(path: Path, environment: str) -> dict[str, Any]:
    """Return the lineage of an imported file, in the form of a store's settings."""
    digest = hashlib.sha256()
    for each in files_of(path):
        digest.update(each.read_bytes())
    return {
        "environment": {"name": environment, "version": "imported"},
        "policy": {"policy": "imported", "file": path.name, "sha256": digest.hexdigest()},
        "sampling": {},
        "search": {},
        "prompt": {"version": "imported"},
        "seed": 0,
    }


def files_of(path: Path) -> list[Path]:
    """Return the files to read: the one, or those of a folder, in the order of their names."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"), key=lambda each: (len(each.name), each.name))
    if not files:
        raise DataError(f"{path} has no file *.json; there is nothing to import")
    return files


def records_of(path: Path) -> list[Any]:
    """Return what a file holds: one JSON object, a list of them, or one a line.

    Raises:
        DataError: It cannot be read, is no JSON, or holds nothing.
    """
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


def leave_out_empty(pairs: Sequence[DrawnPair], removed: Counter[str]) -> list[DrawnPair]:
    """Return the pairs without those in which a message is empty; count them.

    The original keeps what the LLM has said, also when that was nothing.
    """
    kept = [
        each
        for each in pairs
        if all(
            message["content"].strip()
            for messages in (each.pair.prompt, each.pair.chosen, each.pair.rejected)
            for message in messages
        )
    ]
    removed[EMPTY_MESSAGE] += len(pairs) - len(kept)
    return kept


def unlike(where: str, error: Exception) -> DataError:
    """Return the error that names an entry of another form."""
    return DataError(
        f"{where} is not in the form that is read ({type(error).__name__}: {error}); "
        "docs/collecting.md, Imports, shows it"
    )
