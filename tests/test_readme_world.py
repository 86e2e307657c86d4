"""The README's section on one's own world does what it says."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_collection.cli import main
from lit_qagent.environments.conformance import check_environment

README = Path(__file__).parents[1] / "README.md"
HEADING = "## Bring your own world"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    section = README.read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    return BLOCK.findall(section)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the section's files, from which the commands are given."""
    (_, world), _, (_, config) = blocks()
    (tmp_path / "my_world.py").write_text(world, encoding="utf-8")
    (tmp_path / "collect_my_world.yaml").write_text(config, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_world", None)


def test_the_section_has_a_world_a_check_and_a_config() -> None:
    assert [language for language, _ in blocks()] == ["python", "python", "yaml"]


def test_the_world_passes_the_check_as_written(folder: Path) -> None:
    _, (_, check), _ = blocks()
    exec(compile(check, "README.md", "exec"), {})
    world = importlib.import_module("my_world").HiddenNumber(max_steps=3)
    assert Path(importlib.import_module("my_world").__file__ or "").parent == folder
    for split, seed in (("train", 1), ("valid", 2), ("test", 3)):
        check_environment(world, split=split, seed=seed)


def test_the_check_notices_when_the_world_breaks(folder: Path) -> None:
    source = (folder / "my_world.py").read_text()
    (folder / "my_world.py").write_text(source.replace("reward=1.0", "reward=2.0"))
    world = importlib.import_module("my_world").HiddenNumber(max_steps=8)
    with pytest.raises(AssertionError, match=r"reward must be in \[0, 1\], got 2"):
        check_environment(world, split="train")


def test_the_config_collects_trees(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--config", "collect_my_world.yaml"]) == 0
    assert "mean best reward" in capsys.readouterr().out
    summary = json.loads((folder / "runs/my_world/trees/summary.json").read_text())
    assert (summary["finished"], summary["failures"], summary["invalid_rate"]) == (4, 0, 0)
