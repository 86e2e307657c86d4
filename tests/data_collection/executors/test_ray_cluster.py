"""The Ray executor on a real local cluster: the store equals the local one, whatever dies."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_collection.budget import Budget, Limits, RunLimits
from data_collection.executors import ClusterFailure, RayExecutor
from lit_qagent.core.errors import ConfigError
from tests.data_collection.executors.cluster_parts import files, recipe, run, setup_of
from tests.data_collection.test_collect import _wait_for_iterations

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = [
    pytest.mark.integration,
    # What Ray leaves of a start that a busy machine was too slow for; the second try counts.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]
REPOSITORY = Path(__file__).parents[3]
TOY: dict[str, Any] = {
    "environment": {"class_path": "lit_qagent.environments.toy.ToyWorld"},
    "policy": {"class_path": "lit_qagent.policies.scripted.ScriptedPolicy"},
    "search": {"num_iterations": 6, "num_candidates": 3, "stop_at_success": False},
    "prompt": {"think": False, "constrain": True},
    "sampling": {},
    "seed": 3,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for the tests of this module, of more cores than there are."""
    from data_collection.executors.ray_cluster import connected

    with connected(RayExecutor(engines=2, searchers=2)):
        yield


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """What the local executor writes."""
    run(setup_of(recipe()), tmp_path / "local")
    return files(tmp_path / "local")


@pytest.mark.usefixtures("cluster")
def test_a_scripted_and_a_recorded_policy_give_the_local_store(tmp_path: Path) -> None:
    run(setup_of(TOY), tmp_path / "scripted")
    run(setup_of(TOY), tmp_path / "ray", RayExecutor(engines=2), concurrency="auto")
    assert files(tmp_path / "ray") == files(tmp_path / "scripted")

    path = str(tmp_path / "answers.jsonl")
    recorded = "lit_qagent.policies.recorded.RecordedPolicy"
    record = {"path": path, "mode": "record", "policy": TOY["policy"]}
    run(
        setup_of(TOY | {"policy": {"class_path": recorded, "init_args": record}}),
        tmp_path / "record",
    )
    replay = TOY | {"policy": {"class_path": recorded, "init_args": {"path": path}}}
    run(setup_of(replay), tmp_path / "replay", RayExecutor(engines=2))
    assert files(tmp_path / "replay") == files(tmp_path / "record")


@pytest.mark.usefixtures("cluster")
def test_a_killed_search_actor_changes_nothing(
    tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    flag = tmp_path / "killed"
    setup = setup_of(recipe(world={"flag": str(flag)}))
    summary = run(setup, tmp_path / "store", RayExecutor())
    assert flag.exists()
    assert files(tmp_path / "store") == whole
    assert summary.failures == 0
    assert summary.handed_out_again > 0
    assert "its trees are handed out again" in capsys.readouterr().err


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("engines", [1, 2])
def test_a_killed_engine_actor_changes_nothing(
    tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str], engines: int
) -> None:
    flag = tmp_path / "killed"
    setup = setup_of(recipe(policy={"flag": str(flag)}))
    summary = run(setup, tmp_path / "store", RayExecutor(engines=engines))
    assert flag.exists()
    assert files(tmp_path / "store") == whole
    assert (summary.failures, summary.handed_out_again) == (0, 0)
    assert "an engine actor was lost" in capsys.readouterr().err


@pytest.mark.usefixtures("cluster")
def test_a_task_that_kills_every_search_actor_fails_alone(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    setup = setup_of(recipe(world={"fatal": "train/4"}))
    summary = run(setup, tmp_path / "store", RayExecutor(max_losses=2))
    assert (summary.finished, summary.failures) == (6, 1)
    [reason] = summary.failure_reasons
    assert reason.startswith("SearcherLost: 3 search actors died while they did iteration ")
    stored = files(tmp_path / "store")
    assert [name.partition("-")[0] for name in whole if stored[name] != whole[name]] == ["train_4"]


@pytest.mark.usefixtures("cluster")
def test_the_executors_go_on_for_each_other(tmp_path: Path, whole: dict[str, bytes]) -> None:
    limits = RunLimits(budget=Budget(run=Limits(iterations=20)))
    for first, then in ((None, RayExecutor()), (RayExecutor(), None)):
        folder = tmp_path / f"from-{'local' if first is None else 'ray'}"
        assert run(setup_of(recipe()), folder, first, limits=limits).stopped_by is not None
        assert files(folder) != whole
        run(setup_of(recipe()), folder, then)
        assert files(folder) == whole


@pytest.mark.usefixtures("cluster")
def test_what_cannot_be_started_is_one_clear_error(tmp_path: Path) -> None:
    message = "asked for are 4 CPU cores and 1 GPUs, the cluster has 4 and 0; ask for less"
    with pytest.raises(ClusterFailure, match=message):
        run(
            setup_of(recipe()),
            tmp_path / "store",
            RayExecutor(gpus_per_engine=1, cpus_per_engine=2, start_timeout_s=1),
        )
    driver, there = setup_of(recipe()), recipe(world={"num_tasks": 6}, policy={"actions": ["a"]})
    with pytest.raises(ConfigError, match=r"the policy on .*, process \d+ is another than here"):
        run(type(driver)(**{**vars(driver), "recipe": there}), tmp_path / "store", RayExecutor())


def _processes_with(mark: str) -> list[str]:
    """The names of all processes whose environment holds a mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "comm").read_text().strip())
        except OSError:
            continue
    return found


def test_ctrl_c_ends_the_cluster_and_names_the_command_that_goes_on(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    config = tmp_path / "config.yaml"
    store = tmp_path / "store"
    executor = {"class_path": "data_collection.executors.RayExecutor", "init_args": {"engines": 1}}
    config.write_text(yaml.safe_dump(recipe(store=str(store), executor=executor, concurrency=2)))
    mark = f"mark-{uuid.uuid4()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "data_collection", "collect", "--config", str(config)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "QAGENT_TEST_MARK": mark},
    )
    _wait_for_iterations(store, 12, limit_s=120)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"python -m data_collection collect --config {config}" in errors
    assert "Traceback" not in errors
    limit = time.monotonic() + 20
    while (left := _processes_with(mark)) and time.monotonic() < limit:
        time.sleep(0.2)
    assert left == []
    assert files(store) != whole
    run(setup_of(recipe()), store)
    assert files(store) == whole
