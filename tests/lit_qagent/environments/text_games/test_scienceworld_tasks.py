import json
import re
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.environments.text_games.scienceworld_tasks import (
    NUM_VARIATIONS,
    Variation,
    package_splits,
    read_splits,
)
from tests.data_folder import data_file


def write(folder: Path, content: Any) -> Path:  # noqa: ANN401 (also what is refused)
    path = folder / "splits.json"
    path.write_text(json.dumps(content))
    return path


def test_the_package_s_splits_are_disjoint_and_leave_out_the_reserved() -> None:
    reserved = [Variation("boil", 13)]
    splits = package_splits(["boil", "find-plant"], reserved).variations
    every = [each for variations in splits.values() for each in variations]
    assert len(every) == len(set(every)) == 30 + 300 - 1
    assert Variation("boil", 13) not in every
    assert [len(splits[split]) for split in ("train", "dev", "test")] == [163, 82, 84]


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'find-plant'"):
        package_splits(["find-plants"], [])


def test_published_names_are_understood(tmp_path: Path) -> None:
    name = "task-10-measure-melting-point-(known-substance)"
    content = {"train": [[name, 4]], "max_steps": {name: 120}}
    splits = read_splits(write(tmp_path, content))
    assert splits.variations == {"train": [Variation("measure-melting-point-known-substance", 4)]}
    assert splits.step_budgets == {"measure-melting-point-known-substance": 120}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "names none of train, dev, test"),
        ({"train": [["boil"]]}, r"train\[0\] is \['boil'\], expected \[task, variation\]"),
        (
            {"train": [["boil", 1], ["boil", 30]]},
            r"train\[1\]: boil has variations 0 to 29, got 30",
        ),
        ({"dev": [["boyl", 1]]}, r"dev\[0\]: no task of ScienceWorld is called 'boyl'"),
        ({"dev": [["boil", 1], ["boil", 1]]}, "'dev' names a variation twice"),
        ({"dev": [], "max_steps": {"boil": 0}}, "max_steps.boil is 0"),
    ],
)
def test_bad_files_are_refused_with_the_entry(
    content: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_splits(write(tmp_path, content))


def test_a_missing_file_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape('"max_steps": {task: steps}')):
        read_splits(tmp_path / "none.json")


def test_the_published_lists_of_eto() -> None:
    splits = read_splits(data_file("scienceworld/eto_splits.json"))
    assert {split: len(every) for split, every in splits.variations.items()} == {
        "train": 1483,
        "dev": 194,
        "test": 211,
    }
    assert len(splits.step_budgets) == 24
    assert max(splits.step_budgets.values()) == 120
    package = package_splits(NUM_VARIATIONS, []).variations
    for split in ("dev", "test"):
        assert set(splits.variations[split]) <= set(package[split])
    assert not set(splits.variations["train"]) & set(package["test"])
