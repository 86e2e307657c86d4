import json
from pathlib import Path

import pytest

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.environments.webshop.manifests import (
    SHIPPED,
    Manifest,
    hash_indices,
    load_manifest,
    make_manifest,
)
from tests.data_folder import data_file


def write(path: Path, record: object) -> str:
    path.write_text(json.dumps(record), encoding="utf-8")
    return str(path)


def load(name: str, num_goals: int = 10, goals: str = "human") -> Manifest:
    return load_manifest(name, goals=goals, num_goals=num_goals)


@pytest.mark.parametrize(
    ("goals", "num_goals", "sizes"),
    [
        ("human", 12087, {"train": 10587, "valid": 1000, "test": 500}),
        ("synthetic", 6910, {"train": 6410, "test": 500}),
        ("human", 13, {"train": 0, "valid": 0, "test": 13}),
    ],
)
def test_official_splits_are_ranges(goals: str, num_goals: int, sizes: dict[str, int]) -> None:
    manifest = load("official", num_goals, goals)
    assert {split: len(indices) for split, indices in manifest.splits.items()} == sizes
    assert all(manifest.shared(split) == {} for split in sizes)
    everything = [index for indices in manifest.splits.values() for index in indices]
    assert sorted(everything) == list(range(num_goals))


@pytest.mark.parametrize(
    ("name", "sizes", "overlap", "repeated"),
    [
        ("paper", {"train": 1000, "test": 100}, 8, {}),
        ("eto", {"train": 1823, "test": 200}, 21, {"train": 1}),
    ],
)
def test_the_known_lists_overlap_and_it_is_known(
    name: str, sizes: dict[str, int], overlap: int, repeated: dict[str, int]
) -> None:
    """Mistake 8 of the original: train and test lists overlap."""
    manifest = load(name, 12087)
    assert {split: len(indices) for split, indices in manifest.splits.items()} == sizes
    assert manifest.repeated == repeated
    shared = manifest.shared("train")
    assert set(shared.values()) == {"test"}
    assert len(shared) == overlap
    assert manifest.shared("test") == {}
    if name == "paper":
        assert sorted(shared) == [1211, 2933, 4161, 5613, 5900, 7235, 7624, 11580]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_known_lists_are_the_published_ones(name: str) -> None:
    published = json.loads(data_file("webshop/splits.json").read_text("utf-8"))
    manifest = load(name, 12087)
    for split, indices in manifest.splits.items():
        assert list(indices) == list(dict.fromkeys(published[f"{name}_{split}"]))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_known_lists_need_the_full_files(name: str) -> None:
    message = "lists of 12087 human goals, but the files give 6910 synthetic goals"
    with pytest.raises(ConfigError, match=message):
        load(name, 6910, "synthetic")
    with pytest.raises(ConfigError, match="but the files give 13 human goals"):
        load(name, 13)


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    splits = {"train": [3, 1, 3], "dev": [4], "test": [0, 9]}
    path.write_text(make_manifest(splits, goals="human", num_goals=10))
    manifest = load(str(path))
    assert manifest.splits == {"train": (3, 1), "dev": (4,), "test": (0, 9)}
    assert manifest.repeated == {"train": 1}
    assert manifest.sha256() == load(str(path)).sha256()


def test_a_goal_belongs_to_the_most_held_out_split_that_has_it(tmp_path: Path) -> None:
    splits = {"train": [0, 1, 2], "valid": [1, 3], "test": [1, 2]}
    manifest = load(write(tmp_path / "m.json", {"splits": splits}))
    assert manifest.shared("train") == {1: "test", 2: "test"}
    assert manifest.shared("valid") == {1: "test"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "have no object 'splits'"),
        ({"train": [1]}, "have no object 'splits'"),
        ({"splits": {}}, "name no split"),
        ({"splits": {"train": []}}, "split 'train': expected a list of goal indices"),
        ({"splits": {"train": [1, 10]}}, "'train', entry 1: goal 10 is out of range; there are 10"),
        ({"splits": {"train": [-1]}}, "entry 0: goal -1 is out of range"),
        ({"splits": {"train": ["1"]}}, "entry 0: goal '1' is out of range"),
        ({"splits": {"train": [True]}}, "entry 0: goal True is out of range"),
        ({"splits": {"train": [1]}, "sha256": {"train": "0"}}, "does not have the hash"),
    ],
)
def test_a_manifest_of_another_form_is_named(
    tmp_path: Path,
    record: object,
    message: str,
) -> None:
    path = write(tmp_path / "m.json", record)
    with pytest.raises(DataError, match=rf"webshop splits .*m\.json.*{message}"):
        load(path)


def test_a_file_that_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cannot read webshop splits nowhere: No such file.*official"
    ):
        load("nowhere")
    path = tmp_path / "m.json"
    path.write_text("{")
    with pytest.raises(DataError, match="are not valid JSON"):
        load(str(path))


def test_the_hash_of_a_list_depends_on_its_order() -> None:
    assert hash_indices([1, 2]) != hash_indices([2, 1])
