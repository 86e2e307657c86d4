import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from data_collection import store as store_module
from data_collection.budget import RunLimits
from data_collection.collect import choose_tasks, collect
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.store import TreeStore
from data_collection.summary import Summary
from lit_qagent.core.errors import ConfigError, DataError, EnvironmentFailure
from lit_qagent.core.records import Constraint, Message, Observation, Proposal, Sampling, Task
from tests.data_collection.parts import (
    LetterWorld,
    PlannedPolicy,
    SeededPolicy,
    make_setup,
    spell_setup,
)

REPOSITORY = Path(__file__).parents[2]
REWARDS = {"abc": 1.0, "bca": 0.5, "cab": 0.25}


def _setup(*, num_tasks: int = 6, delay_s: float = 0.0) -> SearchSetup:
    world = LetterWorld(rewards=REWARDS, num_tasks=num_tasks)
    policy = SeededPolicy(actions=["a", "b", "c"], delay_s=delay_s)
    return make_setup(world, policy, SearchSpec(num_iterations=12, stop_at_success=False))


def _collect(setup: SearchSetup, folder: Path, **options: int | str | RunLimits) -> Summary:
    tasks = choose_tasks(setup, "train", 0, None)
    options.setdefault("limits", RunLimits(outage_patience_s=0.0))
    options.setdefault("concurrency", 4)
    return collect(setup, tasks, TreeStore(folder), **options)  # type: ignore[arg-type]


def _tree_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "trees").iterdir()}


def test_trees_do_not_depend_on_what_runs_beside_them(tmp_path: Path) -> None:
    _collect(_setup(), tmp_path / "one", concurrency=1)
    _collect(_setup(), tmp_path / "many", concurrency=6)
    assert _tree_files(tmp_path / "one") == _tree_files(tmp_path / "many")
    assert len(_tree_files(tmp_path / "one")) == 6


def test_many_requests_are_in_flight_at_once(tmp_path: Path) -> None:
    setup = _setup(num_tasks=8, delay_s=0.01)
    assert isinstance(setup.policy, SeededPolicy)
    _collect(setup, tmp_path / "store", concurrency=8)
    assert setup.policy.most_in_flight == 8
    assert setup.policy.is_closed


def test_more_trees_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _collect(_setup(), tmp_path / "one", concurrency=1)
    monkeypatch.setattr(store_module, "_MAX_OPEN_FILES", 2)
    _collect(_setup(), tmp_path / "many", concurrency=6)
    assert _tree_files(tmp_path / "one") == _tree_files(tmp_path / "many")


def test_auto_fills_a_known_batch_and_no_more(tmp_path: Path) -> None:
    class Batched(SeededPolicy):
        max_num_seqs = 16
        sequences = 0
        most_sequences = 0
        work = 0.0

        async def propose(
            self,
            messages: Sequence[Message],
            n: int,
            sampling: Sampling,
            *,
            constraint: Constraint | None = None,
            seed: int | None = None,
        ) -> list[Proposal]:
            self.sequences += n
            self.most_sequences = max(self.most_sequences, self.sequences)
            begin = time.monotonic()
            try:
                return await super().propose(
                    messages, n, sampling, constraint=constraint, seed=seed
                )
            finally:
                self.work += n * (time.monotonic() - begin)
                self.sequences -= n

    def setup() -> SearchSetup:
        world = LetterWorld(rewards=REWARDS, num_tasks=60)
        policy = Batched(actions=["a", "b", "c"], delay_s=0.02)
        return make_setup(world, policy, SearchSpec(num_iterations=4, stop_at_success=False))

    auto = setup()
    begin = time.monotonic()
    _collect(auto, tmp_path / "auto", concurrency="auto")
    mean_in_flight = auto.policy.work / (time.monotonic() - begin)  # type: ignore[attr-defined]
    assert auto.policy.most_sequences <= 20  # type: ignore[attr-defined]
    assert mean_in_flight > 10
    by_hand = setup()
    _collect(by_hand, tmp_path / "hand", concurrency=8, limits=RunLimits(sequences_in_flight=7))
    assert by_hand.policy.most_sequences == 7  # type: ignore[attr-defined]
    _collect(setup(), tmp_path / "fixed", concurrency=3)
    assert _tree_files(tmp_path / "auto") == _tree_files(tmp_path / "fixed")


def test_a_second_run_asks_for_nothing_that_is_done(tmp_path: Path) -> None:
    first = _collect(_setup(), tmp_path / "store")
    before = _tree_files(tmp_path / "store")
    setup = _setup()
    second = _collect(setup, tmp_path / "store")
    assert isinstance(setup.policy, SeededPolicy)
    assert setup.policy.seeds == []
    assert _tree_files(tmp_path / "store") == before
    assert (second.trees, second.nodes, second.generated_tokens) == (
        first.trees,
        first.nodes,
        first.generated_tokens,
    )


def test_more_tasks_may_join_a_store(tmp_path: Path) -> None:
    setup = _setup()
    tasks = choose_tasks(setup, "train", 0, 2)
    collect(setup, tasks, TreeStore(tmp_path / "store"), concurrency=2)
    assert _collect(_setup(), tmp_path / "store").trees == 6


def test_the_summary_counts_the_tree_followed_by_hand(tmp_path: Path) -> None:
    summary = _collect(spell_setup(stop_at_success=False), tmp_path / "store")
    # Three iterations, six children and one step of a rollout; bd earned 1.
    assert (summary.trees, summary.finished, summary.failures) == (1, 1, 0)
    assert (summary.iterations, summary.nodes, summary.steps) == (3, 7, 7)
    assert (summary.successes, summary.mean_best_reward, summary.invalid_rate) == (1, 1.0, 0.0)
    # Three expansions gave 3, 2 and 2 answers, the rollout one.
    assert (summary.requests, summary.generated_tokens) == (4, 8)
    stored = json.loads((tmp_path / "store" / "summary.json").read_text())
    assert stored == summary.to_dict()
    assert "mean best reward" in summary.table()


def test_invalid_actions_are_counted(tmp_path: Path) -> None:
    world = LetterWorld(rewards={"a": 0.5}, max_steps=1)
    setup = make_setup(world, PlannedPolicy({"": ["a", "??", "!!", "a"]}))
    assert _collect(setup, tmp_path / "store").invalid_rate == pytest.approx(2 / 3)


def test_a_failed_tree_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    class Moody(SeededPolicy):
        is_broken = True

        async def propose(
            self,
            messages: Sequence[Message],
            n: int,
            sampling: Sampling,
            *,
            constraint: Constraint | None = None,
            seed: int | None = None,
        ) -> list[Proposal]:
            if self.is_broken and "Spell 2." in messages[1].content and len(self.seeds) % 7 == 5:
                return []
            return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)

    def setup(*, is_broken: bool) -> SearchSetup:
        world = LetterWorld(rewards=REWARDS, num_tasks=4)
        policy = Moody(actions=["a", "b", "c"])
        policy.is_broken = is_broken
        return make_setup(world, policy, SearchSpec(num_iterations=12, stop_at_success=False))

    folder = tmp_path / "store"
    summary = _collect(setup(is_broken=True), folder, concurrency=1)
    assert (summary.trees, summary.finished, summary.failures) == (4, 4, 1)
    [failed] = [tree for tree in TreeStore(folder).trees() if tree.end and tree.end.failure]
    assert failed.header.task_id == "train/2"
    assert failed.end is not None
    assert failed.end.failure is not None
    assert failed.end.failure.error == "PolicyFailure"
    assert list(summary.failure_reasons.values()) == [1]
    assert failed.end.failure.iteration == len(failed.iterations)

    assert _collect(setup(is_broken=False), folder).failures == 1
    assert _collect(setup(is_broken=False), folder, retry_failed=True).failures == 0
    _collect(setup(is_broken=False), tmp_path / "whole")
    whole = {tree.header.task_id: tree.tree for tree in TreeStore(tmp_path / "whole").trees()}
    assert {tree.header.task_id: tree.tree for tree in TreeStore(folder).trees()} == whole


def test_a_critic_is_closed_with_its_policy(tmp_path: Path) -> None:
    critic = SeededPolicy(actions=["5"])
    world, policy = LetterWorld(rewards=REWARDS), SeededPolicy(actions=["a", "b", "c"])
    setup = make_setup(world, policy, SearchSpec(num_iterations=2, variant="lats"))
    assert _collect(replace(setup, critic=critic), tmp_path / "store").iterations == 2
    assert critic.seeds
    assert critic.is_closed


def test_a_task_that_cannot_start_is_counted(tmp_path: Path) -> None:
    class Broken(LetterWorld):
        def _start(self, task: Task) -> Observation:
            if task.task_id == "train/1":
                raise EnvironmentFailure("letters: no ink")
            return super()._start(task)

    setup = make_setup(Broken(rewards={"a": 1.0}, num_tasks=3), SeededPolicy(actions=["a"]))
    summary = _collect(setup, tmp_path / "store")
    assert (summary.trees, summary.not_started) == (2, 1)
    assert summary.failure_reasons == {"EnvironmentFailure: letters: no ink": 1}
    assert summary.not_started_tasks == {"train/1": "EnvironmentFailure: letters: no ink"}
    assert "1 failed: EnvironmentFailure: letters: no ink" in summary.table()


def test_a_range_outside_the_split_is_refused() -> None:
    for first, number in ((0, 7), (6, None), (-1, 2), (2, 0)):
        with pytest.raises(ConfigError, match=f"has 6 tasks; first_task={first} and num_tasks"):
            choose_tasks(_setup(), "train", first, number)
    chosen = choose_tasks(_setup(), "train", 4, None)
    assert [task.task_id for task in chosen] == ["train/4", "train/5"]


def test_two_tasks_of_one_name_are_refused() -> None:
    class Doubled(LetterWorld):
        def tasks(self, split: str) -> Sequence[Task]:
            return [*super().tasks(split), *super().tasks(split)]

    setup = make_setup(Doubled(rewards={}), SeededPolicy(actions=["a"]))
    with pytest.raises(DataError, match="has two tasks 'train/0'; ids are unique"):
        choose_tasks(setup, "train", 0, None)


def test_concurrency_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="concurrency must be >= 1 or 'auto', got 0"):
        _collect(_setup(), tmp_path / "store", concurrency=0)


def test_no_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task to search; give at least one"):
        collect(_setup(), [], TreeStore(tmp_path / "store"), concurrency=1)


def _write_config(folder: Path, store: Path, *, delay_s: float) -> Path:
    config = {
        "environment": {
            "class_path": "tests.data_collection.parts.LetterWorld",
            "init_args": {"rewards": REWARDS, "num_tasks": 6},
        },
        "policy": {
            "class_path": "tests.data_collection.parts.SeededPolicy",
            "init_args": {"actions": ["a", "b", "c"], "delay_s": delay_s},
        },
        "search": {"num_iterations": 12, "stop_at_success": False},
        "prompt": {"think": False, "num_examples": 0},
        "store": str(store),
        "concurrency": 3,
    }
    path = folder / f"{store.name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _start_collecting(config: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "data_collection", "collect", "--config", str(config)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def _wait_for_iterations(
    store: Path,
    number: int,
    limit_s: float = 60,
    process: "subprocess.Popen[str] | None" = None,
) -> None:
    """Wait until the store holds some iterations, while the process that writes it runs."""
    limit = time.monotonic() + limit_s
    while time.monotonic() < limit and (process is None or process.poll() is None):
        lines = sum(path.read_bytes().count(b"\n") for path in store.glob("trees/*.jsonl"))
        if lines >= number:
            return
        time.sleep(0.01)
    raise AssertionError(f"{store} did not reach {number} lines in {limit_s} s")


@pytest.mark.integration
def test_kill_and_resume_gives_the_trees_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = _start_collecting(_write_config(tmp_path, whole, delay_s=0.0))
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "finished" in output

    config = _write_config(tmp_path, broken, delay_s=0.01)
    for number in (8, 25, 45):
        process = _start_collecting(config)
        _wait_for_iterations(broken, number)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    assert _tree_files(broken) != _tree_files(whole)
    process = _start_collecting(config)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert _tree_files(broken) == _tree_files(whole)


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_seconds_and_names_the_command_that_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    store = tmp_path / "store"
    config = _write_config(tmp_path, store, delay_s=0.2)
    process = _start_collecting(config)
    _wait_for_iterations(store, 5)
    process.send_signal(number)
    begin = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begin < 5
    assert process.returncode == 130
    assert f"python -m data_collection collect --config {config}" in errors
    assert "Traceback" not in errors
    summary = json.loads((store / "summary.json").read_text())
    assert summary["iterations"] == sum(len(tree.iterations) for tree in TreeStore(store).trees())
    assert summary["iterations"] > 0
