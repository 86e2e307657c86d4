"""Search indexes in folders: built once, checked whenever they are opened, memory-mapped."""

import logging
from collections.abc import Sequence
from pathlib import Path

from lit_qagent.core.errors import DataError
from lit_qagent.core.folders import cache_folder
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.index_files import (
    map_array,
    read_manifest,
    written_whole,
)
from lit_qagent.environments.webshop.search_build import IndexArrays, build_arrays
from lit_qagent.environments.webshop.search_counts import catalog_hash
from lit_qagent.environments.webshop.search_index import SearchIndex

_KIND, _VERSION = "webshop search index", 1
_MAX_IN_MEMORY = 20_000

_log = logging.getLogger(__name__)


def open_search(products: Sequence[Product], folder: Path | None = None) -> SearchIndex:
    """Return the search of a catalogue.

    A small catalogue is indexed in memory, within a second or two. The index of a large one is
    built once and kept in a folder named by the catalogue's hash; one that is damaged or was made
    by another version is built anew.

    Args:
        products: The catalogue.
        folder: Where indexes are kept; by default, large ones in `cache_folder`.
    """
    if folder is None and len(products) <= _MAX_IN_MEMORY:
        return SearchIndex.build(products)
    from filelock import FileLock

    content_hash = catalog_hash(products)
    home = folder or cache_folder() / "webshop"
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"index-{content_hash[:24]}"
    with FileLock(home / f"{path.name}.lock"):  # two processes build it once, not twice
        if path.exists():
            try:
                return open_index(path, content_hash)
            except DataError as error:
                _log.warning("the search index is built again: %s", error)
        write_index(path, products)
        return open_index(path, content_hash)


def open_index(folder: Path, content_hash: str) -> SearchIndex:
    """Return the index of a folder, memory-mapped.

    Args:
        folder: Written by `write_index`.
        content_hash: The `catalog_hash` it must be of.

    Raises:
        DataError: It is missing, damaged, of another version or of another catalogue.
    """
    found = read_manifest(folder, _KIND, _VERSION).get("content_hash")
    if found != content_hash:
        raise DataError(
            f"{folder} is the index of the catalogue with hash {found!r}, expected "
            f"{content_hash!r}; delete it and build it again"
        )
    arrays = (map_array(folder / f"{name}.npy") for name in IndexArrays._fields)
    return SearchIndex(IndexArrays(*arrays))


def write_index(folder: Path, products: Sequence[Product]) -> None:
    """Build the index of a catalogue into a folder, whole or not at all, with progress shown."""
    from rich.console import Console
    from rich.progress import track

    facts = {"kind": _KIND, "version": _VERSION, "content_hash": catalog_hash(products)}
    seen = track(
        products,
        description="search index",
        total=len(products),
        console=Console(stderr=True),
        transient=True,
    )
    with written_whole(folder, facts) as aside:
        build_arrays(seen, aside)
