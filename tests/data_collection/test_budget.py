import json
from pathlib import Path

import pytest

from data_collection.budget import Budget, Limits, RunLimits
from data_collection.cli import main
from data_collection.collect import choose_tasks, collect
from data_collection.iterations import Cost
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.store import TreeStore
from data_collection.summary import Summary
from lit_qagent.core.errors import ConfigError
from tests.data_collection.parts import LetterWorld, SeededPolicy, make_setup
from tests.data_collection.test_collect import REWARDS, _tree_files


def _setup(delay_s: float = 0.0) -> SearchSetup:
    world = LetterWorld(rewards=REWARDS, num_tasks=4)
    policy = SeededPolicy(actions=["a", "b", "c"], delay_s=delay_s)
    return make_setup(world, policy, SearchSpec(num_iterations=12, stop_at_success=False))


def _collect(
    folder: Path, budget: Budget, *, extend: bool = False, delay_s: float = 0.0
) -> Summary:
    setup = _setup(delay_s)
    return collect(
        setup,
        choose_tasks(setup, "train", 0, None),
        TreeStore(folder),
        concurrency=2,
        limits=RunLimits(budget=budget, extend_budget=extend),
    )


def test_the_price_of_a_hand_calculation() -> None:
    budget = Budget(dollars_per_million_prompt_tokens=0.5, dollars_per_million_generated_tokens=2.0)
    cost = Cost(requests=3, prompt_tokens=1_000_000, generated_tokens=250_000)
    assert budget.dollars(cost) == pytest.approx(1.0)
    limits = Limits(dollars=1.0)
    assert budget.reached(limits, cost, iterations=1, seconds=0.0) == "1 of 1.0 dollars"
    assert budget.reached(Limits(dollars=1.01), cost, iterations=1, seconds=0.0) is None


@pytest.mark.parametrize(
    "limits",
    [
        Limits(iterations=4),
        Limits(requests=5),
        Limits(tokens=60),
        Limits(dollars=0.00003),
    ],
)
def test_each_limit_ends_each_tree_and_the_search_goes_on_later(
    tmp_path: Path, limits: Limits
) -> None:
    budget = Budget(tree=limits, dollars_per_million_generated_tokens=1.0)
    folder = tmp_path / "store"
    _collect(folder, budget)
    trees = list(TreeStore(folder).trees())
    reasons = {tree.end.reason for tree in trees if tree.end}
    assert reasons == {"budget"}
    for tree in trees:
        cost = sum((each.cost for each in tree.iterations), start=Cost())
        number = len(tree.iterations)
        assert budget.reached(limits, cost, iterations=number, seconds=0.0) is not None
        without_last = sum((each.cost for each in tree.iterations[:-1]), start=Cost())
        assert budget.reached(limits, without_last, iterations=number - 1, seconds=0.0) is None
    before = _tree_files(folder)
    _collect(folder, Budget())
    assert _tree_files(folder) == before  # not gone on with unless asked to
    _collect(folder, Budget(), extend=True)
    _collect(tmp_path / "whole", Budget())
    whole = {tree.header.task_id: tree.tree for tree in TreeStore(tmp_path / "whole").trees()}
    assert {tree.header.task_id: tree.tree for tree in TreeStore(folder).trees()} == whole


def test_seconds_end_a_tree(tmp_path: Path) -> None:
    _collect(tmp_path / "store", Budget(tree=Limits(seconds=0.03)), delay_s=0.02)
    trees = list(TreeStore(tmp_path / "store").trees())
    assert {tree.end.reason for tree in trees if tree.end} == {"budget"}
    assert all(1 <= len(tree.iterations) < 12 for tree in trees)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(iterations=7), "7 of 7 iterations"),
        (Limits(requests=9), "of 9 requests"),
        (Limits(seconds=0.1), "of 0.1 seconds"),
    ],
)
def test_a_limit_of_the_run_stops_it_and_the_next_run_goes_on(
    tmp_path: Path, limits: Limits, words: str
) -> None:
    folder = tmp_path / "store"
    summary = _collect(folder, Budget(run=limits), delay_s=0.01)
    assert summary.stopped_by is not None
    assert words in summary.stopped_by
    assert summary.finished < 4
    assert 0 < summary.iterations < 48
    assert words in summary.table()
    done = _collect(folder, Budget())
    assert (done.finished, done.stopped_by) == (4, None)
    _collect(tmp_path / "whole", Budget())
    assert _tree_files(folder) == _tree_files(tmp_path / "whole")


def test_budgets_come_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("collect", "--environment", "tests.data_collection.parts.LetterWorld"),
        *("--environment.rewards", "{}", "--environment.num_tasks", "2"),
        *("--policy", "tests.data_collection.parts.SeededPolicy", "--policy.actions", "[a, b]"),
        *("--prompt.num_examples", "0", "--store", str(tmp_path / "store")),
        *("--budget.tree.iterations", "2", "--search.variant", "uct"),
    ]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "store" / "summary.json").read_text())
    assert summary["iterations"] == 4
    assert main([*arguments, "--budget.run.dollars", "3"]) == 1
    assert "a budget in dollars needs prices" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["iterations", "requests", "tokens", "seconds", "dollars"])
def test_limits_that_allow_nothing_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"a budget's {name} must be > 0, got 0"):
        Limits(**{name: 0})
