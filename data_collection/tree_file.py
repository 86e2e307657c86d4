"""One tree's file: a header line, one line per iteration, an end line; JSON, only ever appended."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_collection.iterations import (
    OPEN_ENDS,
    Iteration,
    TreeEnd,
    TreeHeader,
    apply_iteration,
    end_from_json,
    end_to_json,
    header_from_json,
    header_to_json,
    iteration_from_json,
    iteration_to_json,
)
from data_collection.manifest import STORE_SCHEMA_VERSION
from data_collection.tree import SearchTree
from lit_qagent.core.errors import DataError, StoreError

# Records are built here and hold no circle; looking for one would cost a third of the time.
_encode = json.JSONEncoder(check_circular=False).encode


@dataclass(frozen=True, kw_only=True)
class StoredTree:
    """One tree as it was read.

    Attributes:
        header: What it starts from.
        iterations: Iterations done, in order.
        end: How it ended; None if it is unfinished.
        tree: The tree, rebuilt.
        is_torn: True if the file ends in a line that a kill cut short; the line is left out.
    """

    header: TreeHeader
    iterations: tuple[Iteration, ...]
    end: TreeEnd | None
    tree: SearchTree
    is_torn: bool


def tree_id_of(task_id: str) -> str:
    """Return a name that is safe as a file name and differs for different tasks.

    Examples:
        >>> tree_id_of("shop/17")
        'shop_17-1b452e49'
    """
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", task_id).lstrip(".")[:80]
    return f"{readable}-{hashlib.sha256(task_id.encode()).hexdigest()[:8]}"


def read_tree(path: Path, *, truncation_reward: float) -> StoredTree:
    """Read a tree's file and rebuild the tree.

    Raises:
        StoreError: The file is empty or of another schema.
        DataError: A line is damaged or out of order.
    """
    *lines, torn = path.read_bytes().split(b"\n")
    if not lines:
        raise StoreError(
            f"{path} has no header line; delete the file and its tree is searched again"
        )
    header = _parse_header(path, lines[0])
    tree = SearchTree(truncation_reward=truncation_reward)
    iterations: list[Iteration] = []
    end: TreeEnd | None = None
    for number, line in enumerate(lines[1:], start=2):
        record = _parse_line(path, number, line)
        try:
            if record.pop("kind") == "end":
                end = end_from_json(record)
            else:
                iteration = _next_iteration(record, len(iterations), end)
                apply_iteration(tree, iteration)
                iterations.append(iteration)
                end = None
        except (KeyError, TypeError, ValueError, DataError) as error:
            raise _damaged(path, number, error) from error
    return StoredTree(
        header=header, iterations=tuple(iterations), end=end, tree=tree, is_torn=bool(torn)
    )


def _parse_header(path: Path, line: bytes) -> TreeHeader:
    record = _parse_line(path, 1, line)
    version = record.pop("schema_version", "nothing")
    if version != STORE_SCHEMA_VERSION:
        raise StoreError(
            f"{path}, line 1 has schema version {version}, this program reads "
            f"{STORE_SCHEMA_VERSION}; collect again, or use the version that wrote it"
        )
    try:
        record.pop("kind")
        return header_from_json(record)
    except (KeyError, TypeError) as error:
        raise _damaged(path, 1, error) from error


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise _damaged(path, number, error) from error
    if not isinstance(record, dict):
        raise _damaged(path, number, TypeError("not a JSON object"))
    return record


def _next_iteration(record: Mapping[str, Any], number: int, end: TreeEnd | None) -> Iteration:
    iteration = iteration_from_json(record)
    if iteration.number != number:
        raise ValueError(f"iteration {iteration.number} where {number} was expected")
    if end is not None and end.reason not in OPEN_ENDS:
        raise ValueError(f"iteration {number} after the end of the tree")
    return iteration


def _damaged(path: Path, number: int, error: Exception) -> DataError:
    return DataError(
        f"{path}, line {number} is damaged ({type(error).__name__}: {error}); "
        "restore the file, or delete it and its tree is searched again"
    )


def cut_torn_line(path: Path) -> None:
    """Cut what follows the last complete line."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(data.rindex(b"\n") + 1)


def write_header(path: Path, header: TreeHeader) -> None:
    """Begin a tree's file; a kill leaves no file or one with the whole header."""
    record = {"schema_version": STORE_SCHEMA_VERSION} | header_to_json(header)
    partial = path.with_suffix(".partial")
    partial.write_text(_line("header", record), encoding="utf-8")
    partial.replace(path)


def iteration_line(iteration: Iteration) -> str:
    """Return the line of one iteration."""
    return _line("iteration", iteration_to_json(iteration))


def end_line(end: TreeEnd) -> str:
    """Return the line that closes a tree."""
    return _line("end", end_to_json(end))


def _line(kind: str, record: Mapping[str, Any]) -> str:
    return _encode({"kind": kind, **record}) + "\n"
