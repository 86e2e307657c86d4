import asyncio
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from data_collection.collect import collect
from data_collection.iterations import Iteration
from data_collection.search import TreeSearch
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.store import TreeStore
from data_collection.world import TIMED_OUT, Branch, act, in_time
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.core.records import Observation, Sampling, Task
from lit_qagent.environments.base import Outcome
from tests.data_collection.parts import LetterWorld, PlannedPolicy, SeededPolicy, search_tree


class HangingWorld(LetterWorld):
    """Never answers to the letter x, and swallows every exception it can."""

    def _act(self, command: str) -> Outcome:
        while command == "x":
            with suppress(Exception):
                time.sleep(10)
        return super()._act(command)


def _setup(step_timeout_s: float | None = 0.05) -> SearchSetup:
    return SearchSetup(
        environment=HangingWorld(rewards={"a": 0.5, "bx": 1.0, "ba": 0.25}),
        policy=PlannedPolicy({"": ["x", "a", "b"], "b": ["x", "a"]}),
        search=SearchSpec(num_candidates=3, stop_at_success=False),
        prompt=PromptSpec(think=False, num_examples=0),
        sampling=Sampling(),
        seed=0,
        step_timeout_s=step_timeout_s,
    )


def test_a_step_that_hangs_ends_its_branch_and_the_tree_goes_on() -> None:
    setup = _setup()
    search = TreeSearch(setup, setup.environment.tasks("train")[0])
    iterations: list[Iteration] = []
    end = asyncio.run(search_tree(search, iterations.append))
    assert end.reason == "exhausted"
    hung = [node for node in search.tree.nodes if node.step and node.step.action == "x"]
    assert [node.depth for node in hung] == [1, 2]
    for node in hung:
        assert node.step is not None
        assert node.step.observation.text == TIMED_OUT
        assert (node.step.truncated, node.step.valid) == (True, False)
        assert search.tree.q_hat(node.index) == -1.0
    assert search.tree.q_hat(2) == 0.5


def test_such_steps_are_counted_and_stored(tmp_path: Path) -> None:
    setup = _setup()
    store = TreeStore(tmp_path / "store")
    summary = collect(setup, setup.environment.tasks("train"), store, concurrency=1)
    assert (summary.finished, summary.failures) == (1, 0)
    # Five steps of five nodes, two of which hung.
    assert summary.invalid_rate == pytest.approx(2 / 5)
    [stored] = store.trees()
    assert stored.tree.nodes[1].step is not None
    assert stored.tree.nodes[1].step.observation.text == TIMED_OUT


class LateWorld(LetterWorld):
    """Never starts its second task; replays never end while it is stuck."""

    is_stuck = False

    def _start(self, task: Task) -> Observation:
        if task.task_id == "train/1":
            time.sleep(10)
        return super()._start(task)

    def _act(self, command: str) -> Outcome:
        if LateWorld.is_stuck:
            time.sleep(10)
        return super()._act(command)


class LateStep(LetterWorld):
    """Takes two seconds for a step."""

    def begun(self) -> "LateStep":
        self.reset(self.tasks("train")[0])
        return self

    def _act(self, command: str) -> Outcome:
        time.sleep(2)
        return super()._act(command)


def test_a_task_whose_start_hangs_is_counted_and_the_others_go_on(tmp_path: Path) -> None:
    world = LateWorld(rewards={"a": 1.0}, num_tasks=3)
    setup = replace(_setup(), environment=world, policy=SeededPolicy(actions=["a", "b"]))
    store = TreeStore(tmp_path / "store")
    summary = collect(setup, world.tasks("train"), store, concurrency=1)
    assert (summary.trees, summary.not_started) == (2, 1)
    [(task_id, reason)] = summary.not_started_tasks.items()
    assert task_id == "train/1"
    assert "letters: starting task 'train/1' took longer than step_timeout_s (0.05 s)" in reason


def test_a_replay_that_hangs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    world = LateWorld(rewards={"aa": 1.0})
    policy = PlannedPolicy({"": ["a", "b"], "a": ["b"], "ab": ["b"], "abb": ["b"], "b": ["a"]})
    setup = replace(_setup(), environment=world, policy=policy)
    task = world.tasks("train")[0]
    search = TreeSearch(setup, task)
    iteration = asyncio.run(search.iterate())
    resumed = TreeSearch(setup, task)
    resumed.restore([iteration])
    monkeypatch.setattr(LateWorld, "is_stuck", True)
    end = asyncio.run(search_tree(resumed, lambda _: None))
    assert end.failure is not None
    assert end.failure.message.startswith(
        "letters: replaying 1 steps of task 'train/0' took longer"
    )


def test_a_step_in_time_is_what_the_world_says_and_leaves_the_alarm_as_it_was() -> None:
    world = LetterWorld(rewards={})
    world.reset(world.tasks("train")[0])
    before = signal.getsignal(signal.SIGALRM)
    branch = asyncio.run(act(world, "a", 5.0))
    assert branch.step.observation == Observation(text="So far: a")
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def _in_thread(work: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


def test_other_threads_have_the_limit_too() -> None:
    world = HangingWorld(rewards={})
    world.reset(world.tasks("train")[0])
    branch = _in_thread(lambda: asyncio.run(act(world.fork(), "a", 30.0)))
    assert isinstance(branch, Branch)
    assert branch.step.observation.text == "So far: a"
    hung = _in_thread(lambda: asyncio.run(act(LateStep(rewards={}).begun(), "a", 0.05)))
    assert isinstance(hung, Branch)
    assert hung.step.observation.text == TIMED_OUT
    with pytest.raises(EnvironmentFailure, match="a nap took longer than step_timeout_s"):
        _in_thread(lambda: in_time(lambda: time.sleep(2), 0.05, "a nap"))
    assert _in_thread(lambda: in_time(lambda: 3, 30.0, "a number")) == 3


def test_a_world_that_blocks_hangs_alone() -> None:
    class Blocking(HangingWorld):
        @property
        def blocks(self) -> bool:
            return True

        def _act(self, command: str) -> Outcome:
            if command == "x":
                time.sleep(0.5)
            return LetterWorld._act(self, command)

    setup = replace(_setup(0.2), environment=Blocking(rewards={"a": 0.5, "bx": 1.0, "ba": 0.25}))
    search = TreeSearch(setup, setup.environment.tasks("train")[0])
    assert asyncio.run(search_tree(search, lambda _: None)).reason == "exhausted"
    texts = [node.step.observation.text for node in search.tree.nodes if node.step]
    assert texts == [TIMED_OUT, "So far: a", "So far: b", TIMED_OUT, "So far: ba"]


class LostWorld(LetterWorld):
    """Loses its server: its own time-out, not that of the search."""

    is_slow = True

    @property
    def blocks(self) -> bool:
        return self.is_slow

    def _start(self, task: Task) -> Observation:
        if task.task_id == "train/1":
            raise ConnectionError("no route")
        return super()._start(task)

    def _act(self, command: str) -> Outcome:
        raise TimeoutError("the socket timed out")


@pytest.mark.parametrize("timeout_s", [None, 30.0])
@pytest.mark.parametrize("is_slow", [True, False])
def test_a_time_out_of_the_worlds_own_is_a_failure_and_no_cut_step(
    timeout_s: float | None, is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LostWorld, "is_slow", is_slow)
    setup = replace(_setup(timeout_s), environment=LostWorld(rewards={}))
    search = TreeSearch(setup, setup.environment.tasks("train")[0])
    end = asyncio.run(search_tree(search, lambda _: None))
    assert end.failure is not None
    assert (end.failure.error, end.failure.message) == (
        "EnvironmentFailure",
        "letters: a step failed (TimeoutError: the socket timed out)",
    )
    assert len(search.tree.nodes) == 1


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_a_start_without_a_connection_is_a_failure(timeout_s: float | None) -> None:
    world = LostWorld(rewards={}, num_tasks=2)
    setup = replace(_setup(timeout_s), environment=world)
    message = r"letters: starting task 'train/1' failed \(ConnectionError: no route\)"
    with pytest.raises(EnvironmentFailure, match=message):
        TreeSearch(setup, world.tasks("train")[1])


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="step_timeout_s must be > 0, got 0"):
        _setup(step_timeout_s=0.0)
