import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_collection import outage as outage_module
from data_collection.budget import RunLimits
from data_collection.cli import main
from data_collection.collect import choose_tasks, collect
from data_collection.outage import Outage
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.store import TreeStore
from lit_qagent.core.errors import ContextOverflow, EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from tests.data_collection.parts import LetterWorld, SeededPolicy, make_setup
from tests.data_collection.test_collect import REWARDS, _tree_files

DOWN = PolicyFailure("connection refused")


class FlakyPolicy(SeededPolicy):
    """Answers nobody from one request to another."""

    def __init__(self, *, down_from: int, down_to: int) -> None:
        super().__init__(actions=["a", "b", "c"])
        self.down_from = down_from
        self.down_to = down_to
        self.asked = 0

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        self.asked += 1
        if self.down_from <= self.asked < self.down_to:
            raise DOWN
        return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)


def _setup(policy: SeededPolicy) -> SearchSetup:
    world = LetterWorld(rewards=REWARDS, num_tasks=6)
    return make_setup(world, policy, SearchSpec(num_iterations=12, stop_at_success=False))


def _collect(policy: SeededPolicy, folder: Path, patience_s: float, concurrency: int = 3) -> int:
    setup = _setup(policy)
    summary = collect(
        setup,
        choose_tasks(setup, "train", 0, None),
        TreeStore(folder),
        concurrency=concurrency,
        limits=RunLimits(outage_patience_s=patience_s),
    )
    return summary.failures


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_module, "_FIRST_PAUSE_S", 0.01)


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_policy_that_comes_back_costs_nothing(tmp_path: Path, concurrency: int) -> None:
    _collect(FlakyPolicy(down_from=0, down_to=0), tmp_path / "calm", 0.0)
    flaky = FlakyPolicy(down_from=20, down_to=25)
    assert _collect(flaky, tmp_path / "flaky", 30.0, concurrency) == 0
    assert flaky.asked > 25
    assert _tree_files(tmp_path / "flaky") == _tree_files(tmp_path / "calm")


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_policy_that_stays_down_stops_the_run_and_fails_no_task(
    tmp_path: Path, concurrency: int
) -> None:
    folder = tmp_path / "store"
    with pytest.raises(PolicyFailure, match=r"has answered nobody for .* no task was given up"):
        _collect(FlakyPolicy(down_from=20, down_to=10**9), folder, 0.1, concurrency)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["failures"] == 0
    assert summary["iterations"] > 0
    assert _collect(FlakyPolicy(down_from=0, down_to=0), folder, 0.1) == 0
    _collect(FlakyPolicy(down_from=0, down_to=0), tmp_path / "calm", 0.0)
    assert _tree_files(folder) == _tree_files(tmp_path / "calm")


@pytest.mark.usefixtures("_short_pauses")
def test_the_last_tree_alone_without_an_answer_is_recorded_as_failed(tmp_path: Path) -> None:
    setup = _setup(FlakyPolicy(down_from=5, down_to=10**9))
    summary = collect(
        setup,
        choose_tasks(setup, "train", 0, 1),
        TreeStore(tmp_path / "store"),
        concurrency=1,
        limits=RunLimits(outage_patience_s=0.05),
    )
    assert (summary.trees, summary.failures) == (1, 1)
    assert list(summary.failure_reasons) == ["PolicyFailure: connection refused"]


def test_the_command_that_goes_on_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("collect", "--environment", "tests.data_collection.parts.LetterWorld"),
        *("--environment.rewards", "{}", "--environment.num_tasks", "3"),
        *("--policy", "tests.data_collection.test_outage.FlakyPolicy"),
        *("--policy.down_from", "4", "--policy.down_to", "1000000"),
        *("--prompt.num_examples", "0", "--outage_patience_s", "0"),
        *("--store", str(tmp_path / "store"), "--concurrency", "1"),
    ]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "the policy has answered nobody" in error
    assert f"python -m data_collection {' '.join(arguments[:2])}" in error
    assert "Traceback" not in error


def _waits(outage: Outage, error: Exception, tree: str, mark: int | None = None) -> int | None:
    return asyncio.run(outage.waits(error, tree, mark, tries=0))


def test_failures_of_the_tree_itself_are_not_waited_for() -> None:
    outage = Outage(patience_s=100.0)
    assert _waits(outage, EnvironmentFailure("broken"), "a") is None
    assert _waits(outage, ContextOverflow("too long"), "a") is None


@pytest.mark.usefixtures("_short_pauses")
def test_a_tree_that_fails_again_while_others_are_answered_is_what_fails() -> None:
    outage = Outage(patience_s=100.0)
    outage.succeeded()
    mark = _waits(outage, DOWN, "a")  # an answer before says nothing: the policy may just have died
    assert mark == 1
    assert _waits(outage, DOWN, "a", mark) == 1
    outage.succeeded()
    assert _waits(outage, DOWN, "a", mark) is None


@pytest.mark.usefixtures("_short_pauses")
def test_patience_is_for_all_trees_together_and_ends_with_an_answer() -> None:
    now = [0.0]
    outage = Outage(patience_s=10.0, clock=lambda: now[0])
    assert _waits(outage, DOWN, "a") == 0
    now[0] = 9.0
    assert _waits(outage, DOWN, "b") == 0
    outage.succeeded()
    assert _waits(outage, DOWN, "a") == 1
    now[0] = 20.0
    assert _waits(outage, DOWN, "a", mark=1) is None
    with pytest.raises(PolicyFailure, match="answered nobody for 11 s"):
        _waits(outage, DOWN, "b", mark=1)
