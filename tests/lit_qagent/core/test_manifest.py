import json
from pathlib import Path

import pytest

from lit_qagent.core import manifest
from lit_qagent.core.errors import StoreError


def test_differences_name_each_key_with_both_values() -> None:
    old = {"world": {"name": "toy", "depth": 3}, "seed": 0, "gone": None}
    new = {"world": {"name": "toy", "depth": 4}, "seed": 0, "fresh": [1]}

    assert manifest.differences(old, new) == [
        "world.depth: 3 there, 4 now",
        "gone: null there, (absent) now",
        "fresh: (absent) there, [1] now",
    ]


def test_a_tuple_equals_the_list_that_json_makes_of_it() -> None:
    assert manifest.differences({"stop": ["a"]}, {"stop": ("a",)}) == []


def test_a_long_value_is_shortened_in_the_message() -> None:
    [line] = manifest.differences({"ids": ["x" * 500]}, {"ids": []})

    assert len(line) < 200
    assert "..." in line


def test_claim_writes_a_new_folder_and_accepts_the_same_settings_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "manifest.json"

    manifest.claim(path, {"seed": 1}, "Tree store")
    manifest.claim(path, {"seed": 1}, "Tree store")

    assert manifest.read(path, "Tree store") == {"seed": 1}
    assert list(path.parent.iterdir()) == [path]


def test_claim_refuses_other_settings_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifest.claim(path, {"seed": 1}, "Tree store")
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"Tree store .* other settings:\n  seed: 1 there, 2 now"):
        manifest.claim(path, {"seed": 2}, "Tree store")

    assert path.read_bytes() == before


def test_read_names_a_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"has no manifest.json; name a folder"):
        manifest.read(tmp_path / "manifest.json", "Tree store")


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "got list")])
def test_read_refuses_a_damaged_manifest(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(StoreError, match=message):
        manifest.read(tmp_path / "manifest.json", "Tree store")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifest.write_json(path, {"a": 1})

    with pytest.raises(TypeError):
        manifest.write_json(path, {"a": object()})

    assert json.loads(path.read_text()) == {"a": 1}
