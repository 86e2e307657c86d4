"""Questions read through the forms in which the datasets library keeps them."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from lit_qagent.core.errors import DataError
from lit_qagent.environments.hotpotqa import HotPotQA
from lit_qagent.environments.hotpotqa.files import read_questions
from tests.lit_qagent.environments.hotpotqa.question_files import make_record, write_questions


def hub_row(number: int, **changes: object) -> dict[str, Any]:
    """The same record in the columns of the hub."""
    record: dict[str, Any] = make_record(number)
    titles, sentences = zip(*record["context"], strict=True)
    facts, places = zip(*record["supporting_facts"], strict=True)
    row = {
        "id": record["_id"],
        "question": record["question"],
        "answer": record["answer"],
        "type": record["type"],
        "level": record["level"],
        "supporting_facts": {"title": list(facts), "sent_id": list(places)},
        "context": {"title": list(titles), "sentences": list(sentences)},
    }
    return {**row, **changes}


def saved(*rows: dict[str, Any]) -> datasets.Dataset:
    return datasets.Dataset.from_list(list(rows))


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [hub_row(number) for number in range(3)]


@pytest.fixture
def wanted(tmp_path: Path) -> Any:  # noqa: ANN401
    path = write_questions(tmp_path / "official.json", [make_record(n) for n in range(3)])
    return read_questions(path).questions


def test_a_json_file_with_the_hubs_columns(tmp_path: Path, rows: Any, wanted: Any) -> None:  # noqa: ANN401
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    assert read_questions(str(path)).questions == wanted


def test_parquet_files(tmp_path: Path, rows: Any, wanted: Any) -> None:  # noqa: ANN401
    folder = tmp_path / "shards"
    folder.mkdir()
    saved(*rows[:2]).to_parquet(folder / "train-00000.parquet")
    saved(rows[2]).to_parquet(folder / "train-00001.parquet")
    assert read_questions(str(folder)).questions == wanted
    first = read_questions(str(folder / "train-00000.parquet"))
    assert first.questions == wanted[:2]
    assert first.sha256 != read_questions(str(folder)).sha256
    assert first.sha256 == read_questions(str(folder / "train-00000.parquet")).sha256


def test_a_folder_written_by_save_to_disk(tmp_path: Path, rows: Any, wanted: Any) -> None:  # noqa: ANN401
    saved(*rows).save_to_disk(tmp_path / "saved")
    assert read_questions(str(tmp_path / "saved")).questions == wanted


def test_a_folder_of_several_splits_asks_for_one(tmp_path: Path, rows: Any, wanted: Any) -> None:  # noqa: ANN401
    both = datasets.DatasetDict({"train": saved(*rows), "validation": saved(rows[0])})
    both.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"holds the splits train, validation; name one"):
        read_questions(str(tmp_path / "saved"))
    assert read_questions(str(tmp_path / "saved" / "train")).questions == wanted


def test_the_hub(monkeypatch: pytest.MonkeyPatch, rows: Any, wanted: Any) -> None:  # noqa: ANN401
    asked = []

    def load(*names: str, split: str) -> datasets.Dataset:
        asked.append((*names, split))
        return saved(*rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_questions("hf:hotpotqa/hotpot_qa/distractor/validation").questions == wanted
    assert asked == [("hotpotqa/hotpot_qa", "distractor", "validation")]


@pytest.mark.parametrize("error", [ConnectionError("offline"), ValueError("no such split")])
def test_a_hub_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(*names: str, split: str) -> datasets.Dataset:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"cannot load HotPotQA from hf:a/b/c/d: .*local file"):
        read_questions("hf:a/b/c/d")


@pytest.mark.parametrize("source", ["hf:", "hf:a/b", "hf:a/b/c/", "hf:a/b/c/d/e"])
def test_a_hub_name_of_another_form_is_refused(source: str) -> None:
    with pytest.raises(DataError, match="must be hf:owner/name/config/split"):
        read_questions(source)


def test_damaged_sources_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"cannot read HotPotQA file .*bad\.parquet as Parquet"):
        read_questions(str(bad))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"folder .*empty holds no \*\.parquet file and is no"):
        read_questions(str(tmp_path / "empty"))
    saved(hub_row(0)).save_to_disk(tmp_path / "cut")
    [arrow] = (tmp_path / "cut").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(DataError, match=r"folder .*cut holds no"):
        read_questions(str(tmp_path / "cut"))
    with pytest.raises(DataError, match=r"cannot read HotPotQA file .*gone\.parquet as Parquet"):
        read_questions(str(tmp_path / "gone.parquet"))


def test_columns_that_do_not_fit_are_named(tmp_path: Path) -> None:
    context = {"title": ["A", "B"], "sentences": [["One."]]}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([hub_row(0), hub_row(1, context=context)]))
    with pytest.raises(DataError, match=r"record 1 \(id 'q1'\): 'context' has 2 titles and 1 list"):
        read_questions(str(path))
    saved(hub_row(0)).remove_columns("context").to_parquet(tmp_path / "q.parquet")
    with pytest.raises(DataError, match=r"q\.parquet, record 0 \(id 'q0'\): 'context' must list"):
        read_questions(str(tmp_path / "q.parquet"))


def test_a_world_on_a_dataset(tmp_path: Path, rows: Any) -> None:  # noqa: ANN401
    saved(*rows).to_parquet(tmp_path / "train.parquet")
    world = HotPotQA(data={"train": str(tmp_path / "train.parquet")})
    world.reset(world.tasks("train")[0])
    assert world.step("Search[Aske River]").observation.text.startswith("The Aske River is long.")
