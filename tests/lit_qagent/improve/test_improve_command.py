"""The loop with its real commands, on the toy world with a tiny model; killed once, and resumed."""

import asyncio
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
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient

from data_collection.cli import make_parser as collect_parser
from lit_qagent.cli import main as lightning_main
from lit_qagent.core.records import History, Message
from lit_qagent.environments.webshop.manifests import load_manifest
from lit_qagent.improve.command import main, make_parser
from lit_qagent.improve.configs import RoundPlan, read_configs, round_configs
from lit_qagent.improve.configs import write_configs as write_round
from lit_qagent.improve.record import open_record
from lit_qagent.improve.spec import Improve
from lit_qagent.improve.tasks import check_tasks
from lit_qagent.improve.tracking import Tracker
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
    """Write the configs of a loop of one round; return that of the loop."""
    model = save_tiny_model(folder / "model")
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
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
        "budget": {"rounds": 1},
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
@pytest.mark.timeout(1200)  # half a minute of computing; more where much else runs
def test_a_loop_that_was_killed_goes_on_and_refuses_a_model_that_is_no_better(
    tmp_path: Path,
) -> None:
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
        printed, _ = process.communicate(timeout=1000)

    assert process.returncode == 0, printed
    assert "search new tasks: done before" in printed
    after = json.loads((folder / "round_1" / "stages.json").read_text())
    assert {name: after[name] for name in before} == before
    assert list(after) == ["collect", "pairs", "fit", "predict"]
    record = json.loads((folder / "improve.json").read_text())
    assert record["status"] == "finished"
    [row] = record["rounds"]
    # An untrained byte model does not act better on ten tasks.
    assert row["accepted"] is False
    assert row["difference"]["low"] <= 0
    assert row["why"].startswith("refused")
    assert record["checkpoint"] is None
    assert row["tasks"] == 10
    assert row["pairs"] > 0
    assert row["collect"]["trees"] == 4
    check_next_round(Path(row["checkpoint"]), tmp_path)


def check_next_round(checkpoint: Path, folder: Path) -> None:
    """Had it been accepted, the next round's search would be guided by it."""
    spec = read_spec(["--config", str(folder / "improve.yaml")])
    plan = RoundPlan(number=2, folder=folder / "round_2", accepted=checkpoint)
    paths = write_round(round_configs(read_configs(spec), spec, plan), plan.folder)
    collect = collect_parser()
    options = collect.instantiate(
        collect.parse_args(["collect", "--config", str(paths["collect"])])
    ).collect
    assert options.search.variant == "puct"
    assert (options.first_task, options.num_tasks) == (4, 4)
    history = History(head=(Message(role="user", content="Pick red."),))
    assert len(asyncio.run(options.scorer.score(history, ["pick[red]", "pick[blue]"]))) == 2


def read_spec(arguments: list[str]) -> Improve:
    parser = make_parser()
    values = vars(parser.instantiate(parser.parse_args(arguments)))
    return Improve(**{name: value for name, value in values.items() if name != "config"})


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # mlflow and its database library warn of themselves
def test_the_commands_runs_are_nested_in_the_round_and_that_in_the_loop(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = {"experiment_name": "loop", "tracking_uri": uri}
    logger = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": settings}
    fit = {"trainer": {"logger": logger}}
    record = open_record(tmp_path / "loop", {})
    tracker = Tracker(fit, record)
    tracker.begin()
    run = tracker.round_run(1)
    spec = read_spec(["--config", str(write_configs(tmp_path))])
    plan = RoundPlan(number=1, folder=tmp_path / "round_1", mlflow_run=run)
    made = round_configs({**read_configs(spec), "fit": fit}, spec, plan)["fit"]
    child = MLFlowLogger(**made["trainer"]["logger"]["init_args"])
    child.log_metrics({"train/loss": 0.5}, step=1)
    row = {"round": 1, "accepted": False, "why": "refused", "pairs": 7, "collect": {}, "spent": {}}
    row |= {"reward": 0.5, "reward_before": None, "difference": {"mean": 0.1, "low": None}}
    tracker.log_round(row)
    tracker.end({"rounds": [row]})

    again = Tracker(fit, open_record(tmp_path / "loop", {}))  # a resumed loop finds its runs
    again.begin()
    assert again.round_run(1) == run

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("loop")
    assert experiment is not None
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["improve loop", "round 1", "round 1 fit"]
    parents = {name: one.data.tags.get("mlflow.parentRunId") for name, one in runs.items()}
    assert parents["round 1"] == runs["improve loop"].info.run_id
    assert parents["round 1 fit"] == run
    metrics = runs["improve loop"].data.metrics
    assert metrics["improve/pairs"] == 7
    assert metrics["improve/difference_mean"] == 0.1
    assert "improve/difference_low" not in metrics
    assert runs["round 1"].data.tags["decision"] == "refused"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs name each other from the project's folder."""
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("here")
def test_the_quickstarts_world_has_the_tasks_of_its_loop() -> None:
    spec = read_spec(["--config", "configs/improve_quickstart.yaml"])
    base = read_configs(spec)
    check_tasks(spec, base)
    assert spec.budget.rounds == 2


@pytest.mark.usefixtures("here")
def test_webshops_validation_goals_are_neither_searched_nor_held_out() -> None:
    spec = read_spec(["--config", "configs/improve_webshop.yaml"])
    collect, predict = (read_configs(spec)[name] for name in ("collect", "predict"))
    world = collect["environment"]["init_args"]
    assert predict["data"]["init_args"]["environment"]["init_args"] == world
    assert (world["goals"], world["splits"]) == ("synthetic", "official")
    goals = load_manifest("official", goals="synthetic", num_goals=6910).splits
    asked, searched = spec.validation, spec.tasks.first_task
    assert (asked.split, collect["split"]) == ("train", "train")
    decide = goals["train"][asked.first_task :][: asked.num_tasks]
    learn = goals["train"][searched:][: spec.budget.rounds * spec.tasks.per_round]
    assert len(decide) == asked.num_tasks >= 100
    assert set(decide) <= set(range(500, 1500))  # what docs/results.md calls validation
    assert len(learn) == spec.budget.rounds * spec.tasks.per_round
    assert not set(decide) & set(learn)
    assert searched == collect["first_task"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["quickstart", "webshop"])
def test_the_commands_understand_the_configs_of_a_shipped_loop(name: str, tmp_path: Path) -> None:
    spec = read_spec(["--config", f"configs/improve_{name}.yaml"])
    plan = RoundPlan(number=2, folder=tmp_path, accepted=tmp_path / "checkpoint")
    paths = write_round(round_configs(read_configs(spec), spec, plan), tmp_path)
    for command in ("collect", "pairs"):
        collect_parser().parse_args([command, "--config", str(paths[command])])
    for command in ("fit", "predict"):
        # Parsed, printed and nothing else.
        with pytest.raises(SystemExit) as ended:
            lightning_main([command, "--config", str(paths[command]), "--print_config"])
        assert ended.value.code == 0


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "The same command goes on" in printed
    assert "a config for each of collect, pairs, fit and predict" in printed


def test_a_loop_on_test_tasks_is_refused_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(ROOT / "configs/improve_quickstart.yaml")]
    assert main([*config, "--validation.split", "test"]) == 1
    assert "would spoil them" in capsys.readouterr().err
