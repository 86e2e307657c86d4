"""Nothing is lost: kills at any moment, full disks, folders that cannot be written, clock jumps."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from data_collection import store as store_module
from data_collection.collect import choose_tasks, collect
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.store import TreeStore
from lit_qagent.core.errors import StoreError
from tests.data_collection.parts import LetterWorld, SeededPolicy, make_setup
from tests.data_collection.test_collect import REWARDS, _start_collecting, _wait_for_iterations
from tests.tiny_model import save_tiny_model

REPOSITORY = Path(__file__).parents[2]
KILLS = 200
MODEL = "SmolLM2-135M-Instruct"


def _setup(*, leaves: int = 1, delay_s: float = 0.0, num_tasks: int = 12) -> SearchSetup:
    world = LetterWorld(rewards=REWARDS, num_tasks=num_tasks)
    policy = SeededPolicy(actions=["a", "b", "c"], delay_s=delay_s)
    spec = SearchSpec(num_iterations=12, stop_at_success=False, leaves_in_flight=leaves)
    return make_setup(world, policy, spec)


def _collect(folder: Path, **options: float) -> None:
    setup = _setup(**options)  # type: ignore[arg-type]
    tasks = choose_tasks(setup, "train", 0, None)
    collect(setup, tasks, TreeStore(folder), concurrency=4)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "trees").glob("*.jsonl")}


def _kill_after(work: Callable[[], None], seconds: float) -> int | None:
    """Run in a process of its own and kill it; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(seconds)
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


@pytest.mark.integration
@pytest.mark.parametrize("leaves", [1, 3])
def test_a_hundred_kills_at_random_moments_lose_nothing(tmp_path: Path, leaves: int) -> None:
    _collect(tmp_path / "whole", leaves=leaves)
    whole = _files(tmp_path / "whole")
    rng = random.Random(leaves)
    kills = stores = 0
    folder = tmp_path / "store-0"
    while kills < KILLS // 2:
        folder = tmp_path / f"store-{stores}"

        def work(folder: Path = folder) -> None:
            with open(os.devnull, "w") as sink:  # noqa: PTH123 (a device)
                os.dup2(sink.fileno(), 2)
            _collect(folder, leaves=leaves, delay_s=0.002)

        code = _kill_after(work, rng.uniform(0.0, 0.15))
        if code == -signal.SIGKILL:
            kills += 1
        else:
            assert code == 0
            assert _files(folder) == whole
            stores += 1
    _collect(folder, leaves=leaves)
    assert _files(folder) == whole


def _engine_config(store: Path, policy: dict[str, object]) -> Path:
    config = {
        "environment": {"class_path": "lit_qagent.environments.toy.ToyWorld"},
        "policy": policy,
        "search": {"num_iterations": 8, "stop_at_success": False},
        "prompt": {"think": False, "num_examples": 0, "constrain": True},
        "store": str(store),
        "num_tasks": 8,
        "concurrency": 3,
    }
    path = store.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    return path


def _vllm(model: str, dtype: str) -> dict[str, object]:
    arguments = {"model": model, "max_model_len": 2048, "dtype": dtype, "kv_cache_gb": 0.25}
    return {"class_path": "lit_qagent.policies.vllm.VLLMPolicy", "init_args": arguments}


def _recorded(path: Path, mode: str, policy: dict[str, object] | None) -> dict[str, object]:
    arguments = {"path": str(path), "mode": mode, "policy": policy}
    return {"class_path": "lit_qagent.policies.recorded.RecordedPolicy", "init_args": arguments}


def _run_to_the_end(config: Path) -> None:
    process = _start_collecting(config)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def _kill_and_resume(config: Path, store: Path, kills: Sequence[int]) -> None:
    """Kill at so many lines in the store, then run to the end; nothing written is ever changed."""
    before: dict[str, bytes] = {}
    for number in kills:
        process = _start_collecting(config)
        _wait_for_iterations(store, number, limit_s=1800, process=process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        after = _files(store)
        _assert_kept(before, after)
        before = after
    assert b'"kind": "end"' in b"".join(before.values())  # a tree was finished before a kill
    _run_to_the_end(config)
    _assert_kept(before, _files(store))
    ends = [tree.end for tree in TreeStore(store).trees()]
    assert len(ends) == 8
    assert all(end is not None and end.failure is None for end in ends)


def _assert_kept(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    for name, data in before.items():
        assert after[name].startswith(data[: data.rfind(b"\n") + 1])
        if b'"kind": "end"' in data:
            assert after[name] == data


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(3600)  # engines start slowly where other programs run
def test_kills_of_the_real_engine_keep_every_finished_iteration(tmp_path: Path) -> None:
    """In bfloat16 an answer depends on what is in the batch; a recording makes it stay."""
    store, answers = tmp_path / "store", tmp_path / "answers.jsonl"
    config = _engine_config(store, _recorded(answers, "record", _vllm(MODEL, "bfloat16")))
    _kill_and_resume(config, store, (12, 30, 50))
    whole = tmp_path / "whole"
    _run_to_the_end(_engine_config(whole, _recorded(answers, "replay", None)))
    assert _files(store) == _files(whole)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(3600)  # engines start slowly where other programs run
def test_in_float32_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    store, whole = tmp_path / "store", tmp_path / "whole"
    policy = _vllm(str(save_tiny_model(tmp_path / "tiny")), "float32")
    _kill_and_resume(_engine_config(store, policy), store, (12, 30, 50))
    _run_to_the_end(_engine_config(whole, policy))
    assert _files(store) == _files(whole)


@pytest.mark.integration
def test_a_full_disk_stops_the_run_keeps_all_and_the_next_run_goes_on(tmp_path: Path) -> None:
    _collect(tmp_path / "whole")
    folder = tmp_path / "store"
    limit = 2500  # bytes a file may have: a header and some iterations, and then a part of one

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(StoreError, match=r"cannot be written .*; everything finished so far"):
            _collect(folder)

    assert _kill_after(work, 60) == 0
    stored = list(TreeStore(folder).trees())
    assert any(tree.is_torn for tree in stored)
    assert sum(len(tree.iterations) for tree in stored) > 0
    _collect(folder)
    assert _files(folder) == _files(tmp_path / "whole")


def test_a_folder_that_cannot_be_written_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        StoreError, match=r"store cannot be written \(Read-only file system\); give"
    ):
        _collect(tmp_path / "store")


@pytest.mark.parametrize("what", ["claim_settings", "write_json"])
def test_settings_and_summary_that_cannot_be_written_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, what, refuse)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
        _collect(tmp_path / "store")
    monkeypatch.undo()
    _collect(tmp_path / "store")
    _collect(tmp_path / "whole")
    assert _files(tmp_path / "store") == _files(tmp_path / "whole")


def test_a_wall_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _collect(tmp_path / "calm")
    rng = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: rng.uniform(-1e9, 4e9))
    _collect(tmp_path / "jumpy")
    assert _files(tmp_path / "jumpy") == _files(tmp_path / "calm")


@pytest.mark.integration
def test_a_second_collector_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    store = tmp_path / "store"
    config = {
        "environment": {
            "class_path": "tests.data_collection.parts.LetterWorld",
            "init_args": {"rewards": REWARDS, "num_tasks": 4},
        },
        "policy": {
            "class_path": "tests.data_collection.parts.SeededPolicy",
            "init_args": {"actions": ["a", "b", "c"], "delay_s": 0.5},
        },
        "search": {"num_iterations": 12, "stop_at_success": False},
        "prompt": {"think": False, "num_examples": 0},
        "store": str(store),
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    first = _start_collecting(path)
    _wait_for_iterations(store, 3)
    second = subprocess.run(
        [sys.executable, "-m", "data_collection", "collect", "--config", str(path)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert second.returncode == 1
    assert f"is being written by process {first.pid}" in second.stderr
    lines = sum(data.count(b"\n") for data in _files(store).values())
    _wait_for_iterations(store, lines + 2)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
