import asyncio
from collections import Counter

import pytest

from data_collection.iterations import Iteration
from data_collection.search import TreeSearch
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.tree import ROOT, SearchTree
from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.core.records import Task
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld
from tests.data_collection.parts import (
    LetterWorld,
    PlannedPolicy,
    SeededPolicy,
    make_setup,
    search_tree,
    spell_setup,
)


def _task(setup: SearchSetup) -> Task:
    return setup.environment.tasks("train")[0]


def _search(setup: SearchSetup) -> tuple[TreeSearch, list[Iteration], str]:
    search = TreeSearch(setup, _task(setup))
    iterations: list[Iteration] = []
    end = asyncio.run(search_tree(search, iterations.append))
    return search, iterations, end.reason


def _actions(tree: SearchTree) -> list[str]:
    return ["".join(step.action for step in tree.steps(node.index)) for node in tree.nodes]


def test_a_search_followed_by_hand() -> None:
    search, iterations, reason = _search(spell_setup(stop_at_success=False))
    tree = search.tree
    # 0: expand root (a, b; the second "a" is the same), roll out a -> ac, 0.
    # 1: b is unvisited: expand it (bc, bd), evaluate bc, an end worth 0.25.
    # 2: b is exhausted: expand a (ac, ad), evaluate ac, an end worth 0. Nothing is left.
    assert reason == "exhausted"
    assert _actions(tree) == ["", "a", "b", "bc", "bd", "ac", "ad"]
    assert [i.selected for i in iterations] == [0, 2, 1]
    assert [i.evaluated for i in iterations] == [1, 3, 5]
    assert [i.reward for i in iterations] == [0.0, 0.25, 0.0]
    assert [[s.action for s in i.rollout] for i in iterations] == [["c"], [], []]
    assert [node.visits for node in tree.nodes] == [3, 2, 1, 1, 0, 1, 0]
    assert tree[ROOT].value == pytest.approx(0.25 / 3)
    assert [tree.q_hat(node) for node in range(1, 7)] == [0.0, 0.25, 0.25, 1.0, 0.0, 0.5]


def test_candidates_are_one_request_and_rollouts_one_action_each() -> None:
    setup = spell_setup(stop_at_success=False)
    _, iterations, _ = _search(setup)
    assert isinstance(setup.policy, PlannedPolicy)
    assert setup.policy.requests == [("", 3), ("a", 1), ("b", 3), ("a", 3)]
    assert [i.cost.requests for i in iterations] == [2, 1, 1]


def test_stops_at_the_first_success_in_the_tree() -> None:
    search, iterations, reason = _search(spell_setup())
    assert reason == "success"
    assert len(iterations) == 2
    assert len(search.tree.nodes) == 5


def test_stops_at_a_success_of_a_rollout() -> None:
    world = LetterWorld(rewards={"aa": 1.0})
    _, iterations, reason = _search(make_setup(world, SeededPolicy(actions=["a"])))
    assert reason == "success"
    assert len(iterations) == 1


def test_ends_when_every_child_of_the_root_is_a_failed_end_and_keeps_them_all() -> None:
    world = LetterWorld(rewards={"a": 0.0, "b": 0.0, "c": 0.0})
    setup = make_setup(world, PlannedPolicy({"": ["a", "b", "c"]}), SearchSpec(num_iterations=1000))
    search, iterations, reason = _search(setup)
    assert (reason, len(iterations)) == ("exhausted", 1)
    assert _actions(search.tree) == ["", "a", "b", "c"]
    assert [search.tree.q_hat(node) for node in (1, 2, 3)] == [0.0, 0.0, 0.0]


def test_stops_at_the_iteration_limit() -> None:
    _, iterations, reason = _search(spell_setup(num_iterations=2, stop_at_success=False))
    assert (reason, len(iterations)) == ("iterations", 2)


def test_an_episode_cut_by_the_step_limit_earns_the_truncation_reward() -> None:
    world = LetterWorld(rewards={}, max_steps=2)
    policy = PlannedPolicy({"": ["a"], "a": ["a"]})
    setup = make_setup(world, policy, SearchSpec(num_iterations=1, truncation_reward=-0.5))
    search, [iteration], _ = _search(setup)
    assert iteration.rollout[-1].truncated
    assert iteration.reward == -0.5
    assert search.tree.q_hat(1) == -0.5


def test_each_child_acts_on_its_own_branch_of_the_world() -> None:
    search, _, _ = _search(spell_setup(stop_at_success=False))
    texts = [node.step.observation.text for node in search.tree.nodes if node.step]
    assert texts == [f"So far: {word}" for word in ("a", "b", "bc", "bd", "ac", "ad")]


def test_no_success_leaks_from_one_branch_into_another() -> None:
    world = LetterWorld(rewards={"a": 1.0, "b": 0.0, "c": 0.0})
    setup = make_setup(world, PlannedPolicy({"": ["a", "b", "c"]}))
    search, _, _ = _search(setup)
    assert [node.step.reward for node in search.tree.nodes if node.step] == [1.0, 0.0, 0.0]


def test_malformed_actions_are_steps_kept_whole_and_marked_invalid() -> None:
    odd = "Look: up [f[x]]: now"
    world = LetterWorld(rewards={"a": 0.0}, max_steps=1)
    search, [iteration], _ = _search(make_setup(world, PlannedPolicy({"": [odd, "", "a"]})))
    assert _actions(search.tree) == ["", odd, "", "a"]
    assert [step.valid for step in iteration.children] == [False, False, True]
    assert len(iteration.children) == 3


def test_a_failure_ends_the_tree_and_leaves_it_as_it_was() -> None:
    world = LetterWorld(rewards={"ac": 0.0})
    search = TreeSearch(
        setup := make_setup(world, PlannedPolicy({"": ["a", "b"], "a": ["c"]})), _task(setup)
    )
    end = asyncio.run(search_tree(search, lambda _: None))
    assert end.reason == "failed"
    assert end.failure is not None
    assert (end.failure.error, end.failure.iteration) == ("PolicyFailure", 1)
    assert end.failure.message == "no answer after 'b'"
    assert (end.num_iterations, end.num_nodes) == (1, 3)


def test_a_policy_without_answers_is_a_failure_with_a_remedy() -> None:
    search = TreeSearch(
        setup := make_setup(LetterWorld(rewards={}), PlannedPolicy({"": []})), _task(setup)
    )
    end = asyncio.run(search_tree(search, lambda _: None))
    assert end.failure is not None
    assert "PlannedPolicy returned no action for 5 asked" in end.failure.message


def test_going_on_from_any_iteration_gives_the_same_tree() -> None:
    world = LetterWorld(rewards={"abc": 1.0, "bca": 0.5, "cab": 0.25}, max_steps=4)
    setup = make_setup(
        world, SeededPolicy(actions=["a", "b", "c"]), SearchSpec(stop_at_success=False), seed=3
    )
    whole, iterations, reason = _search(setup)
    assert len(iterations) > 8
    for num_done in (0, 1, 5, len(iterations)):
        resumed = TreeSearch(setup, _task(setup))
        resumed.restore(iterations[:num_done])
        rest: list[Iteration] = []
        assert asyncio.run(search_tree(resumed, rest.append)).reason == reason
        assert rest == iterations[num_done:]
        assert resumed.tree == whole.tree


def test_a_world_that_does_not_replay_is_a_failure() -> None:
    setup = spell_setup(stop_at_success=False)
    _, iterations, _ = _search(setup)
    resumed = TreeSearch(setup, _task(setup))
    changed = iterations[0].children[1]
    object.__setattr__(changed, "action", "z")
    resumed.restore(iterations[:1])
    with pytest.raises(EnvironmentFailure, match=r"replaying 'z' .* recorded was 'So far: b'"):
        asyncio.run(resumed.iterate())


def test_seeds_depend_on_task_and_iteration_not_on_order() -> None:
    world = LetterWorld(rewards={"aa": 0.0, "bb": 0.0}, num_tasks=2)
    policies = [SeededPolicy(actions=["a", "b"]) for _ in range(2)]
    for policy, order in zip(policies, ((0, 1), (1, 0)), strict=True):
        setup = make_setup(world, policy)
        for number in order:
            search = TreeSearch(setup, world.tasks("train")[number])
            asyncio.run(search_tree(search, lambda _: None))
    assert Counter(policies[0].seeds) == Counter(policies[1].seeds)
    assert max(Counter(policies[0].seeds).values()) == 1


def test_q_hat_nears_the_optimal_q_when_ends_may_be_revisited() -> None:
    splits = SplitSizes(train=4, valid=1, test=1)
    world = ToyWorld(depth=2, num_actions=3, max_steps=2, splits=splits)
    policy = PlannedPolicy(
        {
            "red, blue, green": ["pick[red]", "pick[blue]", "pick[green]"],
            "circle, square, star": ["pick[circle]", "pick[square]", "pick[star]"],
        }
    )
    spec = SearchSpec(num_iterations=4000, stop_at_success=False, revisit_ends=True)
    setup = make_setup(world, policy, spec)
    search, _, _ = _search(setup)
    world.reset(_task(setup))
    tree = search.tree
    q_hat = {node.index: tree.q_hat(node.index) or 0.0 for node in tree.nodes[1:]}
    optimal = {
        index: world.optimal_q([step.action for step in tree.steps(index)]) for index in q_hat
    }
    # A wrong first pick is visited seldom, so its mean still holds its worse ends.
    assert len(q_hat) == 12
    assert max(abs(q_hat[index] - optimal[index]) for index in q_hat) < 0.25
    best = max(tree[ROOT].children, key=lambda child: optimal[child])
    assert q_hat[best] == pytest.approx(optimal[best], abs=0.02)
    assert all(q_hat[best] > q_hat[child] + 0.1 for child in tree[ROOT].children if child != best)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_iterations", 0, "search.num_iterations must be >= 1, got 0"),
        ("num_candidates", 0, "search.num_candidates must be >= 1, got 0"),
        ("eta", -1.0, "search.eta must be >= 0, got -1.0"),
        ("truncation_reward", 0.5, "search.truncation_reward must be <= 0, got 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchSpec(**{field: value})  # type: ignore[arg-type]
