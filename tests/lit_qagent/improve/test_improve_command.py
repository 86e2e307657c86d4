"""The loop with its real commands, on the toy world with a tiny model; killed once, and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from lit_qagent.improve.command import main, make_parser
from lit_qagent.improve.spec import Improve
from tests.tiny_model import save_tiny_model

ROOT = Path(__file__).parents[3]
WORLD = {
    "class_path": "lit_qagent.environments.toy.ToyWorld",
    "init_args": {
        "depth": 2,
        "num_actions": 5,
        "splits": {"train": 10, "valid": 10, "test": 2},
        "max_steps": 2,
    },
}
POLICY = {"class_path": "lit_qagent.policies.scripted.ScriptedPolicy"}
PROMPT = {"think": False, "num_examples": 0, "constrain": True}


def write_configs(folder: Path) -> Path:
    """Write the configs of a loop of two rounds; return that of the loop."""
    model = save_tiny_model(folder / "model")
    logger = {
        "class_path": "lightning.pytorch.loggers.MLFlowLogger",
        "init_args": {
            "experiment_name": "loop",
            "tracking_uri": f"sqlite:///{folder}/mlflow.db",
        },
    }
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": logger}
    selectors = "lit_qagent.agents.selection."
    configs: dict[str, Any] = {
        "collect": {
            "environment": WORLD,
            "policy": POLICY,
            "prompt": PROMPT,
            "search": {"num_iterations": 6, "num_candidates": 5, "stop_at_success": False},
        },
        "pairs": {"rule": "paper"},
        "fit": {
            "trainer": {**quiet, "max_epochs": 1, "enable_model_summary": False},
            "model": {"backbone": {"name": str(model), "dtype": "float32"}, "max_length": 1024},
            "data": {
                "class_path": "lit_qagent.data.datamodule.PreferenceDataModule",
                "init_args": {"pairs": "unset", "valid_fraction": 0.2, "test_fraction": 0.0},
            },
        },
        "predict": {
            "return_predictions": False,
            "trainer": quiet,
            "data": {
                "class_path": "lit_qagent.evaluation.tasks.EpisodeDataModule",
                "init_args": {
                    "environment": WORLD,
                    "policy": POLICY,
                    "agents": {
                        "random_of_n": {"selector": f"{selectors}RandomSelector"},
                        "q_guided": {"selector": f"{selectors}QSelector", "num_candidates": 3},
                    },
                    "sampling": {"max_tokens": 16},
                    "prompt": PROMPT,
                    "play": {"output": "unset", "concurrency": 4},
                },
            },
        },
    }
    paths = {}
    for name, config in configs.items():
        paths[name] = str(folder / f"{name}.yaml")
        Path(paths[name]).write_text(yaml.safe_dump(config))
    loop = {
        "folder": str(folder / "loop"),
        "configs": paths,
        "tasks": {"per_round": 4},
        "validation": {"num_tasks": 10},
        "budget": {"rounds": 2},
    }
    (folder / "improve.yaml").write_text(yaml.safe_dump(loop))
    return folder / "improve.yaml"


@contextmanager
def started(config: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a loop in a process group of its own; nothing of it is left running behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_qagent", "improve", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.integration
def test_a_loop_that_was_killed_goes_on_and_decides_every_round(tmp_path: Path) -> None:
    config = write_configs(tmp_path)
    folder = tmp_path / "loop"
    with started(config) as process:
        stages = folder / "round_1" / "stages.json"
        wait_for(stages, process)
        while "pairs" not in json.loads(stages.read_text()):
            time.sleep(0.05)
        # Leaving kills it with its stage, while the Q-model is being trained.
    before = json.loads(stages.read_text())
    assert list(before) == ["collect", "pairs"]

    with started(config) as process:
        printed, _ = process.communicate(timeout=540)

    assert process.returncode == 0, printed
    assert "search new tasks: done before" in printed
    after = json.loads((folder / "round_1" / "stages.json").read_text())
    assert {name: after[name] for name in before} == before
    assert list(after) == ["collect", "pairs", "fit", "predict"]
    record = json.loads((folder / "improve.json").read_text())
    check_record(record, folder)
    check_mlflow(record, f"sqlite:///{tmp_path}/mlflow.db")


def check_record(record: dict[str, Any], folder: Path) -> None:
    assert record["status"] == "finished"
    first, second = record["rounds"]
    assert first["searched_tasks"] == [0, 3]
    assert second["searched_tasks"] == [4, 7]
    # An untrained byte model does not act better on ten tasks: refused, and nothing guides.
    for row in (first, second):
        assert row["accepted"] == (row["difference"]["low"] > 0)
        assert row["tasks"] == 10
        assert row["pairs"] > 0
        assert (Path(row["checkpoint"]) / "q_model.yaml").is_file()
    assert first["accepted"] is False
    assert record["checkpoint"] is None
    assert second["guided_by"] is None
    assert "random_of_n" in second["compared_with"]
    lineage = yaml.safe_load((folder / "round_2" / "checkpoint" / "q_model.yaml").read_text())
    assert len(lineage["lineage"]["task_ids"]) == 8  # the pairs of both rounds


def check_mlflow(record: dict[str, Any], uri: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("loop")
    assert experiment is not None
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    loop, first = record["mlflow"]["loop"], record["mlflow"]["1"]
    assert runs[loop].data.metrics["improve/pairs"] == record["rounds"][1]["pairs"]
    assert runs[loop].info.status == "FINISHED"
    parents = {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in runs.values()}
    assert parents["round 1"] == loop
    assert parents["round 1 fit"] == parents["round 1 predict"] == first


def test_the_shipped_config_is_read_and_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    parser = make_parser()
    values = vars(
        parser.instantiate(
            parser.parse_args(["--config", str(ROOT / "configs/improve_quickstart.yaml")])
        )
    )
    spec = Improve(**{name: value for name, value in values.items() if name != "config"})
    assert all((ROOT / path).is_file() for path in spec.configs.paths().values())
    assert spec.budget.rounds == 2
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "The same command goes on" in " ".join(capsys.readouterr().out.split())


def test_a_loop_on_test_tasks_is_refused_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(ROOT / "configs/improve_quickstart.yaml")]
    assert main([*config, "--validation.split", "test"]) == 1
    assert "would spoil them" in capsys.readouterr().err
