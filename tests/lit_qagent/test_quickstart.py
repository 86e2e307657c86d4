import json
from pathlib import Path
from typing import Any

import pytest

from lit_qagent import quickstart
from lit_qagent.core.errors import ConfigError
from lit_qagent.quickstart import STAGES, Stage, summarise
from lit_qagent.stages import StageRecord, fingerprint


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _record(seconds: float, peak_rss_gb: float) -> StageRecord:
    return StageRecord(fingerprint="x", seconds=seconds, peak_rss_gb=peak_rss_gb)


def test_the_report_joins_what_every_stage_made(tmp_path: Path) -> None:
    _write(tmp_path / "predict" / "report.json", {"tasks": 40, "agents": {}, "seconds": 3})
    _write(tmp_path / "pairs" / "card.json", {"task_ids": ["a", "b"], "num_pairs": 7})
    _write(tmp_path / "test_metrics.json", {"test/accuracy": 0.75})
    records = {"collect": _record(10.0, 2.5), "predict": _record(20.5, 3.5)}
    report = summarise(tmp_path, records, setup_s=9.5)
    assert report["tasks"] == 40
    assert report["trained_tasks"] == 2
    assert report["pairs"] == 7
    assert report["pair_accuracy"] == 0.75
    assert report["seconds"] == 40.0
    assert report["peak_rss_gb"] == 3.5
    assert report["stages"]["collect"]["seconds"] == 10.0


def test_a_broken_result_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "predict").mkdir()
    (tmp_path / "predict" / "report.json").write_text("{")
    with pytest.raises(ConfigError, match="quickstart --fresh"):
        summarise(tmp_path, {}, setup_s=0)


def test_every_stage_has_a_config_that_names_its_command() -> None:
    for stage in STAGES:
        assert f"python -m {stage.module} {stage.command} --config" in stage.config.read_text()


def test_a_changed_config_restarts_its_stage_and_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "CONFIGS", tmp_path)
    for stage in STAGES:
        stage.config.write_text("old")
    before = [fingerprint(STAGES[:end]) for end in range(1, len(STAGES) + 1)]
    STAGES[2].config.write_text("new")
    after = [fingerprint(STAGES[:end]) for end in range(1, len(STAGES) + 1)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True] * 2 + [False] * 3


def test_finished_stages_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text('run')"
    mark = tmp_path / "mark"
    stage = Stage(name="only", module="m", command=str(mark), purpose="write a file")
    monkeypatch.setattr(quickstart, "CONFIGS", tmp_path)
    monkeypatch.setattr(quickstart, "STAGES", (stage,))
    monkeypatch.setattr(Stage, "arguments", property(lambda self: ["-c", script, self.command]))
    stage.config.write_text("same")
    first = quickstart._run_stages(tmp_path / "run")
    assert mark.read_text() == "run"
    assert first["only"].peak_rss_gb > 0
    mark.unlink()
    assert quickstart._run_stages(tmp_path / "run") == first
    assert not mark.exists()


def test_a_stage_that_fails_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quickstart, "FOLDER", tmp_path / "run")
    stage = Stage(name="collect", module="m", command="c", purpose="fail")
    monkeypatch.setattr(quickstart, "STAGES", (stage,))
    monkeypatch.setattr(Stage, "arguments", property(lambda self: ["-c", "raise SystemExit(3)"]))
    assert quickstart.main([]) == 3
    assert "run it again to go on: make quickstart" in capsys.readouterr().err


def test_it_says_so_when_run_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert quickstart.main([]) == 1
    assert "run from the project's folder" in capsys.readouterr().err
