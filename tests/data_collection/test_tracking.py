import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_collection.budget import Budget, RunLimits
from data_collection.cli import main
from data_collection.collect import collect
from data_collection.store import TreeStore
from data_collection.tracking import RUN_FILE, Tracker, redacted, tracked
from lit_qagent.core.errors import PolicyFailure
from tests.data_collection.parts import LetterWorld, SeededPolicy, make_setup, spell_setup


class Notes:
    """A logger that remembers, or fails while it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.params: dict[str, Any] = {}
        self.status: str | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.fails:
            raise ConnectionError("no server at http://me:secret@host/api")
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any) -> None:  # noqa: ANN401 (as in the protocol)
        self.params = params

    def finalize(self, status: str = "success") -> None:
        self.status = status


def test_the_last_numbers_are_those_of_the_summary(tmp_path: Path) -> None:
    setup = spell_setup(stop_at_success=False)
    notes = Notes()
    budget = Budget(dollars_per_million_prompt_tokens=1e6, dollars_per_million_generated_tokens=2e6)
    summary = collect(
        setup,
        setup.environment.tasks("train"),
        TreeStore(tmp_path),
        concurrency=1,
        limits=RunLimits(budget=budget),
        logger=notes,
    )
    step, metrics = notes.metrics[-1]
    assert step == summary.iterations > 0
    assert metrics["collect/trees_done"] == metrics["collect/trees_planned"] == 1
    assert metrics["collect/trees_failed"] == 0
    assert metrics["collect/success_rate"] == 1.0
    assert metrics["collect/mean_best_reward"] == summary.mean_best_reward
    assert metrics["collect/nodes"] == summary.nodes
    assert metrics["collect/requests"] == summary.requests
    assert metrics["collect/generated_tokens"] == summary.generated_tokens
    assert metrics["collect/dollars"] == summary.prompt_tokens + 2 * summary.generated_tokens
    assert metrics["collect/invalid_rate"] == summary.invalid_rate
    assert notes.params["search"]["num_candidates"] == 3
    assert notes.status == "success"


def test_a_run_that_goes_on_counts_the_trees_of_earlier_ones(tmp_path: Path) -> None:
    world = LetterWorld(rewards={"a": 1.0, "b": 0.0}, num_tasks=4)
    setup = make_setup(world, SeededPolicy(actions=["a", "b"]))
    tasks = world.tasks("train")
    collect(setup, tasks[:3], TreeStore(tmp_path), concurrency=1)
    notes = Notes()
    collect(setup, tasks[3:], TreeStore(tmp_path), concurrency=1, logger=notes)
    # The first numbers too, which come before the run has seen a tree.
    assert all(metrics["collect/trees_done"] >= 3 for _, metrics in notes.metrics)
    assert notes.metrics[-1][1]["collect/trees_done"] == 4


def test_a_server_that_is_down_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    setup = spell_setup(stop_at_success=False)
    with caplog.at_level(logging.WARNING):
        summary = collect(
            setup,
            setup.environment.tasks("train"),
            TreeStore(tmp_path),
            concurrency=1,
            logger=Notes(fails=True),
        )
    assert summary.finished == 1
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [
        "tracking failed, the collection goes on: ConnectionError: no server at http://host/api"
    ]


def test_numbers_come_again_once_the_server_is_back(tmp_path: Path) -> None:
    notes = Notes(fails=True)
    tracker = Tracker(notes, tmp_path, {"a": 1}, lambda: {"collect/iterations": 7.0}, every_s=0.01)
    with tracked(tracker, []):
        time.sleep(0.05)
        notes.fails = False
        time.sleep(0.05)
    assert {step for step, _ in notes.metrics} == {7}
    assert notes.params == {"a": 1}


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (PolicyFailure, "failed")]
)
def test_the_run_says_how_it_ended(tmp_path: Path, error: type[BaseException], status: str) -> None:
    notes = Notes()
    tracker = Tracker(notes, tmp_path, {}, lambda: {"collect/iterations": 0.0})
    with pytest.raises(error), tracked(tracker, []):
        raise error
    assert notes.status == status


def test_a_logger_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("data_collection.tracking._END_LIMIT_S", 0.05)
    free = threading.Event()

    class Hanging(Notes):
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            free.wait(10)

    tracker = Tracker(Hanging(), tmp_path, {}, lambda: {"collect/iterations": 0.0})
    with caplog.at_level(logging.WARNING), tracked(tracker, []):
        pass
    assert "has not taken everything within 0.05 s" in caplog.text
    free.set()


def test_secrets_are_left_out() -> None:
    settings = {
        "policy": {"api_key": "sk-1", "max_tokens": 5, "base_url": "https://me:pw@host/v1"},
        "list": [{"hub_token": "t", "password": "p"}],
        "stop": ("Observation:",),
    }
    assert redacted(settings) == {
        "policy": {"api_key": "(hidden)", "max_tokens": 5, "base_url": "https://host/v1"},
        "list": [{"hub_token": "(hidden)", "password": "(hidden)"}],
        "stop": ["Observation:"],
    }


def _config(folder: Path, **logger: object) -> Path:
    config = {
        "environment": {
            "class_path": "tests.data_collection.parts.LetterWorld",
            "init_args": {"rewards": {"ab": 0.5, "ba": 1.0}, "num_tasks": 4},
        },
        "policy": {
            "class_path": "tests.data_collection.parts.SeededPolicy",
            "init_args": {"actions": ["a", "b"]},
        },
        "search": {"num_iterations": 8},
        "prompt": {"think": False, "num_examples": 0},
        "store": str(folder / "trees"),
        "logger": {
            "class_path": "lightning.pytorch.loggers.MLFlowLogger",
            "init_args": {"experiment_name": "letters", "run_name": "collect", **logger},
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # mlflow and its database library warn of themselves
def test_a_collection_goes_on_in_the_same_mlflow_run(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config = _config(tmp_path, tracking_uri=uri, artifact_location=str(tmp_path / "artifacts"))
    command = ["collect", "--config", str(config)]
    assert main([*command, "--num_tasks", "1"]) == 0
    assert main(command) == 0
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("letters")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["collect/trees_done"] == 4
    assert run.data.params["search/num_iterations"] == "8"
    history = client.get_metric_history(run.info.run_id, "collect/trees_done")
    assert {1.0, 4.0} <= {each.value for each in history}
    files = {each.path for each in client.list_artifacts(run.info.run_id, "collect")}
    assert files == {"collect/summary.json", "collect/manifest.json"}
    assert uri in (tmp_path / "trees" / RUN_FILE).read_text()


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_a_logger_that_cannot_be_made_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = _config(tmp_path, tracking_uri="nonsense://host")
    with caplog.at_level(logging.WARNING):
        assert main(["collect", "--config", str(config), "--num_tasks", "1"]) == 0
    assert "the logger cannot be made, the collection goes on without it" in caplog.text
    assert (tmp_path / "trees" / "summary.json").exists()
