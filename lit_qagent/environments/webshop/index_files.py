"""A folder of arrays that is complete or absent: written aside, checked by sums, memory-mapped."""

import json
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lit_qagent.core.errors import DataError

_MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 22
_LEFTOVER_AGE_S = 24 * 3600.0


@contextmanager
def written_whole(folder: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Give a new folder to write files into; it gets its name once the block has ended well.

    A manifest with the facts and a checksum of every file is added. What stood under the name
    before is replaced. If the block fails or the process dies, the name is as it was.

    Args:
        folder: The name; its parent is made.
        facts: JSON values for the manifest, read when the block ends.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        sums = {path.name: _checksum(path) for path in sorted(aside.iterdir())}
        manifest = json.dumps({**facts, "files": sums}, indent=1)
        (aside / _MANIFEST).write_text(manifest, encoding="utf-8")
        _sync(aside)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_manifest(folder: Path, kind: str, version: int) -> dict[str, Any]:
    """Return the facts of a folder after checking every file of it.

    Args:
        folder: Made by `written_whole`.
        kind: What its manifest must name under ``kind``.
        version: What it must name under ``version``.

    Raises:
        DataError: It is missing, damaged, or made by another version; the message says which.
    """
    remedy = f"delete {folder} and build it again"
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = (manifest["kind"], manifest["version"])
        sums = dict(manifest["files"])
    except FileNotFoundError:
        raise DataError(f"{folder} has no {_MANIFEST}, so it is no {kind}; {remedy}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error!r}); {remedy}") from None
    if found != (kind, version):
        raise DataError(f"{folder} is a {found}, expected {(kind, version)}; {remedy}")
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise DataError(f"{folder} lacks its file {name}; {remedy}")
        if _checksum(folder / name) != expected:
            raise DataError(f"{folder / name} is damaged, its checksum differs; {remedy}")
    return dict(manifest)


def map_array(path: Path) -> np.ndarray:
    """Return an array of a file without reading it into memory."""
    # A plain view: slices of np.memmap itself cost microseconds each.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def map_bytes(path: Path) -> mmap.mmap | bytes:
    """Return the bytes of a file without reading them into memory."""
    if path.stat().st_size == 0:  # such a file cannot be mapped
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while writing this folder have left beside it.

    Whether one is still writing cannot be asked across machines, so a day must have passed.
    """
    for aside in folder.parent.glob(f".{folder.name}.*.part"):
        touched = max(path.stat().st_mtime for path in (aside, *aside.iterdir()))
        if time.time() - touched > _LEFTOVER_AGE_S:
            shutil.rmtree(aside, ignore_errors=True)


def _checksum(path: Path) -> list[int]:
    """Return the size and the CRC-32 of a file."""
    size, checksum = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return [size, checksum]


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
