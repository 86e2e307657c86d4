import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_collection.search import TreeSearch
from data_collection.store import TreeStore
from data_collection.tree_file import StoredTree
from lit_qagent.core.errors import DataError, StoreError
from tests.data_collection.parts import search_tree, spell_setup

SETUP = spell_setup(stop_at_success=False)


def _fill(folder: Path) -> tuple[TreeStore, TreeSearch, Path]:
    """Write the tree that is followed by hand: a header, three iterations, an end."""
    store = TreeStore(folder)
    search = TreeSearch(SETUP, SETUP.environment.tasks("train")[0])
    tree_id = search.header.tree_id
    with store.open(SETUP.manifest()):
        store.start(search.header)
        end = asyncio.run(
            search_tree(search, lambda iteration: store.append_iteration(tree_id, iteration))
        )
        store.append_end(tree_id, end)
    return store, search, folder / "trees" / f"{tree_id}.jsonl"


def _only_tree(store: TreeStore) -> StoredTree:
    [stored] = store.trees()
    return stored


def test_reading_back_rebuilds_the_tree_exactly(tmp_path: Path) -> None:
    store, search, path = _fill(tmp_path / "store")
    stored = _only_tree(store)
    assert stored.tree == search.tree
    assert stored.header == search.header
    assert stored.end is not None
    assert stored.end.reason == "exhausted"
    assert not stored.is_torn
    kinds = [json.loads(line)["kind"] for line in path.read_text().splitlines()]
    assert kinds == ["header", "iteration", "iteration", "iteration", "end"]


def test_cutting_the_file_anywhere_loses_at_most_one_iteration(tmp_path: Path) -> None:
    store, search, path = _fill(tmp_path / "store")
    whole = path.read_bytes()
    first_line = whole.index(b"\n") + 1
    for length in range(first_line, len(whole) + 1):
        path.write_bytes(whole[:length])
        stored = _only_tree(store)
        complete = whole[:length].count(b"\n") - 1
        assert len(stored.iterations) == min(complete, 3)
        assert stored.is_torn == (whole[length - 1 : length] != b"\n")
    assert _only_tree(store).tree == search.tree


def test_resuming_cuts_a_torn_line_and_says_so(tmp_path: Path) -> None:
    store, search, path = _fill(tmp_path / "store")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    stored = store.resume(search.header)
    assert stored is not None
    assert stored.is_torn
    assert len(stored.iterations) == 1
    assert path.read_bytes() == b"".join(lines[:2])


def test_other_settings_are_refused_with_every_difference(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    _fill(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = spell_setup(stop_at_success=False, eta=1.0, num_iterations=7).manifest()
    other["policy"] = {"name": "other"}
    with (
        pytest.raises(StoreError, match="was made with other settings") as caught,
        TreeStore(folder).open(other),
    ):
        pass
    lines = str(caught.value).splitlines()
    assert "  search.eta: 2.0 there, 1.0 now" in lines
    assert "  search.num_iterations: 30 there, 7 now" in lines
    assert '  policy.name: "planned" there, "other" now' in lines
    assert len(lines) == 5
    after = {path: path.read_bytes() for path in before}
    lock = folder / ".lock"
    assert {k: v for k, v in before.items() if k != lock} == {
        k: v for k, v in after.items() if k != lock
    }


def test_a_store_of_another_schema_is_refused(tmp_path: Path) -> None:
    store, _, path = _fill(tmp_path / "store")
    manifest = tmp_path / "store" / "manifest.json"
    good = manifest.read_text()
    manifest.write_text(good.replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(StoreError, match=r"schema version 9, this program reads 1; collect"):
        store.settings()
    manifest.write_text(good)
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(StoreError, match=r"jsonl, line 1 has schema version 9"):
        _only_tree(store)


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    store, _, _ = _fill(tmp_path / "store")
    (tmp_path / "store" / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest.json is not JSON .*; restore it"):
        store.settings()


def test_an_empty_tree_file_is_refused(tmp_path: Path) -> None:
    store, _, path = _fill(tmp_path / "store")
    path.write_bytes(b"")
    with pytest.raises(StoreError, match=f"{path.name} has no header line; delete the file"):
        _only_tree(store)


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (2, b"{", b"", "line 2 is damaged .JSONDecodeError"),
        (3, b'"number": 1', b'"number": 2', "line 3 is damaged .*iteration 2 where 1 was expected"),
        (3, b'"selected": 2', b'"selected": 77', "line 3 is damaged .*node 77 is not in the tree"),
        (3, b'"reward": 0.25, "cost"', b'"cost"', "line 3 is damaged .*reward"),
        (4, b'"children"', b'"childs"', "line 4 is damaged .KeyError: 'children'"),
        (5, b'"kind": "end", ', b"", "line 5 is damaged .KeyError: 'kind'"),
        (1, b'"head"', b'"hat"', "line 1 is damaged .KeyError: 'head'"),
    ],
)
def test_a_damaged_line_is_named(
    tmp_path: Path, line: int, old: bytes, new: bytes, message: str
) -> None:
    store, _, path = _fill(tmp_path / "store")
    lines = path.read_bytes().splitlines(keepends=True)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=message):
        _only_tree(store)


def test_nothing_follows_the_end_of_a_tree(tmp_path: Path) -> None:
    store, _, path = _fill(tmp_path / "store")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[4], lines[3]]))
    with pytest.raises(DataError, match=r"line 5 is damaged .*iteration 2 after the end"):
        _only_tree(store)


def test_a_world_whose_texts_changed_is_refused(tmp_path: Path) -> None:
    store, search, _ = _fill(tmp_path / "store")
    object.__setattr__(search.header, "first_observation", "Other words")
    with pytest.raises(StoreError, match="starts from another chat than the world now shows"):
        store.resume(search.header)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(StoreError, match=r"holds other files \(notes.txt\) and no manifest.json"),
        TreeStore(tmp_path).open(SETUP.manifest()),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"Tree store .*nowhere' has no manifest.json"):
        list(TreeStore(tmp_path / "nowhere").trees())


@pytest.mark.integration
def test_two_collectors_do_not_share_a_store(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with TreeStore(folder).open(SETUP.manifest()):
        code = (
            "import sys; from pathlib import Path; from data_collection.store import TreeStore\n"
            "with TreeStore(Path(sys.argv[1])).open({}): pass"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
        )
    assert second.returncode != 0
    assert "is being written by process" in second.stderr
    with TreeStore(folder).open(SETUP.manifest()):
        pass
