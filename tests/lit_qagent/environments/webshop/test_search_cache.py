import logging
import os
from pathlib import Path

import pytest

from lit_qagent.core.errors import DataError
from lit_qagent.environments.webshop import search_cache, search_counts
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.search_cache import open_index, open_search, write_index
from lit_qagent.environments.webshop.search_counts import catalog_hash
from lit_qagent.environments.webshop.search_index import SearchIndex

PRODUCTS = generate_catalog(CatalogSpec(num_products=50))
QUERIES = ("lamp", "red cotton shirt", "for every day", "<c> garden", "zebra")


def only_index(home: Path) -> Path:
    (folder,) = home.glob("index-*[!k]")
    return folder


def rankings(index: SearchIndex) -> list[list[int]]:
    return [index.rank(query, 10) for query in QUERIES]


def test_an_index_of_a_folder_equals_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_counts, "_CHUNK_PRODUCTS", 7)
    index = open_search(PRODUCTS, tmp_path)
    monkeypatch.undo()
    assert rankings(index) == rankings(SearchIndex.build(PRODUCTS))
    assert not list(only_index(tmp_path).glob("counts-*"))


def test_it_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rankings(open_search(PRODUCTS, tmp_path))
    monkeypatch.setattr(search_cache, "build_arrays", None)  # calling it would raise
    assert rankings(open_search(PRODUCTS, tmp_path)) == expected


def test_another_catalogue_gets_its_own(tmp_path: Path) -> None:
    open_search(PRODUCTS, tmp_path)
    assert len(open_search(PRODUCTS[:-1], tmp_path)) == len(PRODUCTS) - 1
    assert len(list(tmp_path.glob("index-*[!k]"))) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "version", "stale"])
def test_a_damaged_or_stale_index_is_never_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = rankings(open_search(PRODUCTS, tmp_path))
    folder = only_index(tmp_path)
    array, manifest = folder / "factors.npy", folder / "manifest.json"
    if damage == "flip":
        content = bytearray(array.read_bytes())
        content[-1] ^= 1
        array.write_bytes(content)
    elif damage == "cut":
        array.write_bytes(array.read_bytes()[:-4])
    elif damage == "remove":
        array.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    elif damage == "version":
        manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 0'))
    else:
        other = write_to(tmp_path / "other")
        folder.rename(tmp_path / "old")
        other.rename(folder)
    with pytest.raises(DataError, match="build it again"):
        open_index(folder, catalog_hash(PRODUCTS))
    with caplog.at_level(logging.WARNING):
        assert rankings(open_search(PRODUCTS, tmp_path)) == expected
    assert "built again" in caplog.text
    assert rankings(open_index(folder, catalog_hash(PRODUCTS))) == expected


def write_to(folder: Path) -> Path:
    write_index(folder, PRODUCTS[:10])
    return folder


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(search_cache, "build_arrays", fail)
    with pytest.raises(OSError, match="no space"):
        write_index(tmp_path / "index", PRODUCTS)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed_and_a_running_one_is_let_be(tmp_path: Path) -> None:
    left, running = tmp_path / ".index.1.part", tmp_path / ".index.2.part"
    for folder in (left, running):
        folder.mkdir()
        (folder / "products.npy").write_bytes(b"half")
    for path in (left, left / "products.npy"):
        os.utime(path, (1.0, 1.0))
    os.utime(running, (1.0, 1.0))
    write_index(tmp_path / "index", PRODUCTS)
    assert not left.exists()
    assert running.exists()
    open_index(tmp_path / "index", catalog_hash(PRODUCTS))


def test_a_small_catalogue_is_kept_in_memory_and_a_large_one_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIT_QAGENT_CACHE", str(tmp_path))
    open_search(PRODUCTS)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(search_cache, "_MAX_IN_MEMORY", 49)
    open_search(PRODUCTS)
    assert only_index(tmp_path / "webshop").is_dir()


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no manifest.json.*build it again"):
        open_index(tmp_path, "x")
