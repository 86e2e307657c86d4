"""The loop's runs in MLflow, with scripted commands."""

import json
import subprocess
from dataclasses import replace

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lit_qagent.improve.loop import run_loop
from lit_qagent.improve.spec import Improve, LoopBudget
from lit_qagent.improve.tracking import Tracker

# mlflow's database takes seconds, and it and its library warn of themselves
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]
REWARDS = {"q_guided": [0.5] * 12, "random_of_n": [0.5] * 12}


@pytest.fixture
def uri(spec: Improve) -> str:
    """The address of a database that the fit config names."""
    address = f"sqlite:///{spec.folder.parent}/mlflow.db"
    path = spec.configs.fit
    fit = yaml.safe_load(path.read_text())
    settings = {"experiment_name": "loop", "tracking_uri": address}
    logger = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": settings}
    path.write_text(yaml.safe_dump(fit | {"trainer": {"logger": logger}}))
    spec.folder.mkdir()
    (spec.folder / "script.json").write_text(json.dumps({"round_1": REWARDS}))
    return address


def run(spec: Improve, rounds: int = 1, **limits: int) -> None:
    budget = LoopBudget(rounds=rounds, **limits)
    run_loop(replace(spec, budget=budget), say=lambda text: None)


def statuses(uri: str) -> dict[str, str]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("loop")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {one.info.run_name: one.info.status for one in found}


def test_runs_say_how_the_loop_ended_and_are_opened_again(
    spec: Improve, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec.folder / "fails_round_1_fit").write_text("3")
    with pytest.raises(subprocess.CalledProcessError):
        run(spec)
    assert statuses(uri) == {"improve loop": "FAILED", "round 1": "FAILED"}

    seen: list[dict[str, str]] = []
    begin = Tracker.round_run

    def look(self: Tracker, number: int) -> str | None:
        found = begin(self, number)
        seen.append(statuses(uri))
        return found

    monkeypatch.setattr(Tracker, "round_run", look)
    (spec.folder / "fails_round_1_predict").write_text("130")  # Ctrl-C
    with pytest.raises(subprocess.CalledProcessError):
        run(spec)
    assert seen == [{"improve loop": "RUNNING", "round 1": "RUNNING"}]
    assert statuses(uri) == {"improve loop": "KILLED", "round 1": "KILLED"}
    record = json.loads((spec.folder / "improve.json").read_text())
    assert (record["status"], record["why"]) == ("stopped", "round 1: interrupted")

    run(spec)
    assert statuses(uri) == {"improve loop": "FINISHED", "round 1": "FINISHED"}

    run(spec, rounds=2, requests=40)  # the second round's search spends it
    assert statuses(uri) == {
        "improve loop": "FINISHED",
        "round 1": "FINISHED",
        "round 2": "KILLED",
    }


def test_a_server_that_is_down_does_not_hide_what_failed(
    spec: Improve, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise MlflowException("no connection")

    monkeypatch.setattr(MlflowClient, "log_dict", down)
    (spec.folder / "fails_round_1_pairs").write_text("3")
    said: list[str] = []

    with pytest.raises(subprocess.CalledProcessError):
        run_loop(spec, say=said.append)

    assert said[-1] == "MLflow's runs of this loop stay open: no connection"
