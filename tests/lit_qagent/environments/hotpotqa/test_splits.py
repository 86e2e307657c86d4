import json
import pickle
from pathlib import Path

import pytest

from lit_qagent.core.errors import ConfigError, DataError, StoreError
from lit_qagent.environments.hotpotqa import HotPotQA
from lit_qagent.environments.hotpotqa.splits import IndexList, read_positions
from tests.lit_qagent.environments.hotpotqa.question_files import make_record, write_questions


def make_world(folder: Path, manifest: str | None = None, **lists: str) -> HotPotQA:
    path = write_questions(folder / "q.json", [make_record(number) for number in range(6)])
    chosen = {}
    for split, text in lists.items():
        (folder / f"{split}.txt").write_text(text)
        chosen[split] = IndexList(of="all", path=str(folder / f"{split}.txt"))
    return HotPotQA(data={"all": path}, index_lists=chosen, manifest=manifest)


def test_a_list_chooses_questions_by_position_in_its_order(tmp_path: Path) -> None:
    world = make_world(tmp_path, train="4 0\n2\n", test="[1, 5]")
    ids = {split: [task.task_id for task in world.tasks(split)] for split in ("train", "test")}
    assert ids == {"train": ["q4", "q0", "q2"], "test": ["q1", "q5"]}
    assert {task.split for task in world.tasks("test")} == {"test"}
    assert len(world.tasks("all")) == 6


@pytest.mark.parametrize("text", ["3\n1\n", "3 1", "3, 1", "[3, 1]", " [3,1]\n"])
def test_lists_may_be_text_or_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    assert read_positions(path, 4) == [3, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"[]", "is empty"),
        (b"1 2 4", r"entry 2: position 4 is out of range, the file has 4 questions \(0 to 3\)"),
        (b"9" * 5000, "entry 0: position 9+ is out of range"),
        (b"1 -1", "entry 1: expected a position from 0, got '-1'"),
        (b"[1, 2.5]", "entry 1: expected a position from 0, got '2.5'"),
        (b"[1, true]", "entry 1: expected a position from 0, got 'True'"),
        (b"[1, 2", "neither text nor a JSON array"),
        (b"2 3 2", "names position 2 twice"),
        (pickle.dumps([1, 2]), "neither text nor a JSON array .* write pickled lists out as text"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"index list .*list\.txt.*{message}"):
        read_positions(path, 4)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read index list .*gone\.txt: No such file"):
        read_positions(tmp_path / "gone.txt", 4)


def test_lists_that_share_a_question_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'q2' is in split 'train' .* and again in split 'test'"):
        make_world(tmp_path, train="1 2", test="2 3")


def test_a_list_needs_a_new_name_and_a_file_to_choose_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"index_lists\.all chooses from 'all'"):
        make_world(tmp_path, all="1")
    path = write_questions(tmp_path / "q.json", [make_record(0)])
    lists = {"test": IndexList(of="dev", path="x")}
    with pytest.raises(ConfigError, match=r"chooses from 'dev'.*one of train to choose from"):
        HotPotQA(data={"train": path}, index_lists=lists)


def test_a_manifest_is_written_once_and_compared_from_then_on(tmp_path: Path) -> None:
    manifest = tmp_path / "made" / "splits.json"
    world = make_world(tmp_path, str(manifest), test="1 2")
    written = json.loads(manifest.read_text())
    assert written == world.settings()["splits"]
    assert {split: entry["num_questions"] for split, entry in written.items()} == {
        "all": 6,
        "test": 2,
    }
    assert len(written["all"]["source_sha256"]) == 64
    make_world(tmp_path, str(manifest), test="1 2")
    make_world(tmp_path, str(manifest))  # a part of the splits is fine
    with pytest.raises(DataError, match=r"names other splits:\n  test\.num_questions: 2 there, 3"):
        make_world(tmp_path, str(manifest), test="1 2 3")
    with pytest.raises(DataError, match=r"test\.questions_sha256"):
        make_world(tmp_path, str(manifest), test="2 1")
    with pytest.raises(DataError, match=r"more: null there|more\."):
        make_world(tmp_path, str(manifest), more="3")


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text("{")
    with pytest.raises(StoreError, match=r"splits\.json is not JSON"):
        make_world(tmp_path, str(tmp_path / "splits.json"))


def test_a_question_twice_in_one_file_is_refused(tmp_path: Path) -> None:
    path = write_questions(tmp_path / "q.json", [make_record(0), make_record(1), make_record(0)])
    with pytest.raises(DataError, match=r"q\.json, record 2: _id 'q0' is also that of record 0"):
        HotPotQA(data={"train": path})
