import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_collection.cli import main
from data_collection.store import TreeStore
from data_collection.viewer.view import write_view
from lit_qagent.core.errors import DataError
from tests.data_collection.viewer.stores import (
    SETTINGS,
    Tree,
    iteration,
    planted_tree,
    small_tree,
    step,
    write_store,
)


def page_data(path: Path) -> dict[str, Any]:
    match = re.search('<script type="application/json" id="data">(.*?)</script>', path.read_text())
    assert match is not None
    data: dict[str, Any] = json.loads(match.group(1))
    return data


def test_no_tree_is_dropped(tmp_path: Path) -> None:
    unfinished = Tree("unfinished", (iteration(0, 0, [step("a")], 1),), None)
    store = write_store(tmp_path / "store", [small_tree(), planted_tree(), unfinished])
    damaged = tmp_path / "store" / "trees" / "broken.jsonl"
    damaged.write_text("{}\n{\n")
    (tmp_path / "store" / "trees" / "empty.jsonl").write_text("")
    (tmp_path / "store" / "summary.json").write_text(
        json.dumps({"not_started": 2, "failure_reasons": {"EnvironmentFailure: gone": 2}})
    )
    with next((tmp_path / "store" / "trees").glob("unfinished*")).open("a") as file:
        file.write('{"kind": "iter')
    viewed = write_view(store, tmp_path / "page.html")
    assert dict(viewed.outcomes) == {"partial": 1, "failed": 1, "unfinished": 1, "damaged": 2}
    assert [each.name for each in viewed.damaged] == ["broken", "empty"]
    assert viewed.text().count("not readable: ") == 2
    data = page_data(tmp_path / "page.html")
    reasons = {row["task"]: row["reason"] for row in data["trees"]}
    assert "broken.jsonl, line 1 has schema version nothing" in reasons["broken"]
    assert "has no header line" in reasons["empty"]
    assert reasons["unfinished"].endswith(
        "a half-written iteration at the end of its file was left out"
    )
    assert "2 tasks could not start (EnvironmentFailure: gone)" in data["facts"]


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path / "store", [small_tree()])
    output = tmp_path / "page.html"
    arguments = ["view", "--store", str(tmp_path / "store"), "--output", str(output)]
    scorer = ["--scorer", "tests.data_collection.viewer.test_learned.LengthScorer"]
    assert main([*arguments, *scorer, "--scorer.max_steps", "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{output}\n  1 trees (partial: 1), 5 nodes, 0.0 MB\n")
    assert "2 actions are too long for the Q-model" in said
    (row,) = page_data(output)["trees"]
    assert row["l"] == [None, 26, 5, None, None]
    assert main([*arguments, "--pairs", str(tmp_path)]) == 1
    assert "is no folder of pairs" in capsys.readouterr().err


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    store = TreeStore(tmp_path)
    with store.open(SETTINGS):
        pass
    with pytest.raises(DataError, match="has no tree yet; run 'python -m data_collection collect'"):
        write_view(store, tmp_path / "page.html")


def test_a_store_is_viewed_while_it_is_written(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", [small_tree()])
    with store.open(SETTINGS):
        viewed = write_view(TreeStore(store.folder), tmp_path / "page.html")
    assert viewed.num_nodes == 5
