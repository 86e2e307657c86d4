from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from lit_qagent.core.errors import DataError, MissingPackage
from lit_qagent.environments.text_games import alfworld, packages
from lit_qagent.environments.text_games.alfworld import ALFWorld, find_games, list_tasks


def make_games(folder: Path) -> Path:
    for split, name in (("train", "pick_and_place_simple-Mug-None-Shelf-1"), ("valid_seen", "x-1")):
        trial = folder / "json_2.1.1" / split / name / "trial_1"
        trial.mkdir(parents=True)
        (trial / "game.tw-pddl").write_text("{}")
    return folder


def test_a_missing_package_names_the_data_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "version", absent)
    with pytest.raises(
        MissingPackage, match=r"pip install alfworld.*alfworld-download.*ALFWORLD_D"
    ):
        ALFWorld()


def test_missing_data_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(DataError, match="no data folder is named; pip install alfworld"):
        find_games(None)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"there is no folder .*json_2.1.1"):
        find_games(None)


def test_an_empty_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(alfworld, "package_version", lambda *_, **__: "0.4.2")
    (tmp_path / "json_2.1.1").mkdir()
    with pytest.raises(DataError, match=r"holds no game.tw-pddl"):
        ALFWorld(data=str(tmp_path))


def test_games_are_listed_by_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(alfworld, "package_version", lambda *_, **__: "0.4.2")
    root = find_games(str(make_games(tmp_path)))
    (task,) = list_tasks(root, "train")
    assert task.instruction == "pick and place simple"
    assert (root / task.data["file"]).exists()
    world = ALFWorld(data=str(tmp_path))
    assert [len(world.tasks(split)) for split in ("train", "valid", "test")] == [1, 1, 0]
