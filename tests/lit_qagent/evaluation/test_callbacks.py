import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger
from rich.console import Console

from lit_qagent.core.errors import OverlapError
from lit_qagent.evaluation.callbacks import WriteReport, report_metrics, show_report
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.tasks import EpisodeDataModule
from tests.toy_players import WordPolicy, WordScorer, make_evaluation

ROOT = Path(__file__).parents[3]


class ScoringModule(LightningModule):
    """Does in predict what the training module does: hands its scorer to the shard."""

    def __init__(self, trained_on: list[str]) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.trained_on = trained_on

    def predict_step(self, batch: EpisodeShard, batch_idx: int) -> list[dict[str, Any]]:
        return batch.play(WordScorer(), {"task_ids": self.trained_on})


def make_data(output: Path, **changes: Any) -> EpisodeDataModule:  # noqa: ANN401
    evaluation = make_evaluation(output, **changes)
    return EpisodeDataModule(
        environment=evaluation.environment,
        policy=evaluation.policy,
        agents=dict(evaluation.agents),
        tasks=evaluation.tasks,
        sampling=evaluation.sampling,
        play=evaluation.play,
        prompt=evaluation.prompt,
    )


def make_trainer(root: Path, **options: Any) -> Trainer:  # noqa: ANN401
    return Trainer(
        accelerator="cpu",
        logger=options.pop("logger", False),
        callbacks=[WriteReport()],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        **options,
    )


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[MLFlowLogger]:
    made = MLFlowLogger(
        experiment_name="test",
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        artifact_location=str(tmp_path / "artifacts"),
    )
    yield made
    made.experiment._tracking_client.store._dispose_engine()


def test_predict_plays_reports_and_returns_the_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(tmp_path)

    predictions = trainer.predict(ScoringModule(["seen"]), datamodule=make_data(tmp_path / "out"))

    assert predictions is not None
    assert len(predictions) == 1
    assert len(predictions[0]) == 24
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["differences"]["q_guided - random_of_n"]["tasks"] == 4
    shown = capsys.readouterr().out
    assert "random_of_n" in shown
    assert str(tmp_path / "out" / "report.html") in shown


def test_predict_need_not_return_anything(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)

    assert (
        trainer.predict(
            ScoringModule([]), datamodule=make_data(tmp_path / "out"), return_predictions=False
        )
        is None
    )
    assert (tmp_path / "out" / "report.md").exists()


def test_overlap_ends_predict_with_its_own_error(tmp_path: Path) -> None:
    data = make_data(tmp_path / "out")
    trained_on = [task.task_id for task in data.evaluation.held_out_tasks()]

    with pytest.raises(OverlapError, match="4 of 4 held-out tasks"):
        make_trainer(tmp_path).predict(ScoringModule(trained_on), datamodule=data)

    assert not (tmp_path / "out").exists()


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow's
def test_the_mlflow_run_holds_numbers_and_files(tmp_path: Path, logger: MLFlowLogger) -> None:
    trainer = make_trainer(tmp_path, logger=logger)

    trainer.predict(ScoringModule(["seen"]), datamodule=make_data(tmp_path / "out"))

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert logger.run_id is not None
    metrics = logger.experiment.get_run(logger.run_id).data.metrics
    difference = report["differences"]["q_guided - plain"]
    assert metrics["q_guided/reward"] == report["agents"]["q_guided"]["reward"]
    assert metrics["q_guided - plain/reward_low"] == difference["low"]
    files = {file.path for file in logger.experiment.list_artifacts(logger.run_id, "evaluation")}
    assert files == {
        f"evaluation/{name}"
        for name in (
            "agents.json", "manifest.json", "plots", "report.html", "report.json", "report.md",
            "trajectories.jsonl",
        )
    }  # fmt: skip
    plots = logger.experiment.list_artifacts(logger.run_id, "evaluation/plots")
    assert [file.path.rpartition("/")[2] for file in plots] == [
        "differences.svg", "reward.svg", "reward_by_tokens.svg"
    ]  # fmt: skip
    assert metrics["q_guided/cost_requests"] == 3
    assert 0 < metrics["q_guided - plain/p_value"] <= metrics["q_guided - plain/p_holm"] <= 1


@pytest.mark.integration
def test_ctrl_c_ends_predict_in_seconds_and_keeps_what_was_finished(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from tests.lit_qagent.evaluation.test_callbacks import *\n"
        f"root = Path({str(tmp_path)!r})\n"
        "data = make_data(root / 'out')\n"
        "data.evaluation.policy.delay = 0.3\n"
        "make_trainer(root).predict(ScoringModule(['seen']), datamodule=data)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_for_lines(tmp_path / "out" / "trajectories.jsonl", 2)
    process.send_signal(signal.SIGINT)

    _, said = process.communicate(timeout=15)

    kept = (tmp_path / "out" / "trajectories.jsonl").read_bytes().splitlines()
    assert process.returncode == 1
    assert f"Stopped. {len(kept)} episodes are kept" in said
    assert 2 <= len(kept) < 24
    assert "Traceback" not in said


@pytest.mark.integration
@pytest.mark.slow
def test_two_processes_deal_the_tasks_out_and_the_first_one_reports(tmp_path: Path) -> None:
    script = tmp_path / "predict.py"  # a file, as the second process starts the same program
    script.write_text(
        "from pathlib import Path\n"
        "from tests.lit_qagent.evaluation.test_callbacks import *\n"
        f"root = Path({str(tmp_path)!r})\n"
        "trainer = make_trainer(root, devices=2, strategy='ddp')\n"
        "trainer.predict(ScoringModule([]), datamodule=make_data(root / 'out'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    subprocess.run([sys.executable, script], env=environment, check=True, timeout=300)

    folder = tmp_path / "out"
    for name in ("trajectories.jsonl", "trajectories.rank1.jsonl"):
        assert len((folder / name).read_bytes().splitlines()) == 12
    report = json.loads((folder / "report.json").read_text())
    assert report["episodes"] == {"planned": 24, "finished": 24, "failed": 0, "not_played": 0}


def wait_for_lines(path: Path, number: int) -> None:
    end = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < number:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_metrics_without_a_value_are_left_out() -> None:
    row = {"reward": 1.0, "intervals": {"reward": {"low": None, "high": None}}, "failures": 2}
    nothing: dict[str, Any] = {"mean": None, "low": None, "high": None, "others": {}}
    report = {
        "seconds": 2,
        "peak_rss_gb": 0.5,
        "agents": {"q": row, "plain": {"failures": 4}},
        "differences": {"q - plain": nothing},
        "agreement_by_depth": [],
    }

    assert report_metrics(report) == {
        "predict/seconds": 2.0,
        "predict/peak_rss_gb": 0.5,
        "q/reward": 1.0,
        "q/failures": 2.0,
        "plain/failures": 4.0,
    }


def test_the_tables_fit_a_narrow_terminal(tmp_path: Path) -> None:
    make_trainer(tmp_path).predict(ScoringModule([]), datamodule=make_data(tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    screen = io.StringIO()

    show_report(report, tmp_path, Console(file=screen, width=90))

    assert "q_guided - random_of_n" in screen.getvalue()
    assert "…" not in screen.getvalue()
    assert "as reward 0" not in screen.getvalue()


def test_the_terminal_says_what_failures_change(tmp_path: Path) -> None:
    word = make_evaluation(tmp_path).held_out_tasks()[0].data["target"][0]
    data = make_data(tmp_path / "out", policy=WordPolicy(fails_on=word))
    make_trainer(tmp_path).predict(ScoringModule([]), datamodule=data)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    screen = io.StringIO()

    show_report(report, tmp_path, Console(file=screen, width=90))

    assert "Failed episodes as reward 0" in screen.getvalue()
    assert "…" not in screen.getvalue()
