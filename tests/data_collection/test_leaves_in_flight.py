import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from data_collection.iterations import Cost, Iteration
from data_collection.search import TreeSearch
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.tree import ROOT, SearchTree
from data_collection.uct import Descent, Pending
from lit_qagent.core.errors import PolicyFailure, StoreError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from tests.data_collection.parts import (
    LetterWorld,
    PlannedPolicy,
    SeededPolicy,
    make_setup,
    make_step,
    search_tree,
)

REWARDS = {"abc": 1.0, "bca": 0.5, "cab": 0.25}


class JitteryPolicy(SeededPolicy):
    """Answers as its parent does, after times that differ from run to run."""

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        self.delay_s = random.random() / 200
        return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)


def _setup(policy: SeededPolicy, leaves: int, **search: int | bool) -> SearchSetup:
    world = LetterWorld(rewards=REWARDS, max_steps=5)
    options = {"num_iterations": 24, "stop_at_success": False} | search
    spec = SearchSpec(leaves_in_flight=leaves, **options)  # type: ignore[arg-type]
    return make_setup(world, policy, spec, seed=5)


def _search(
    setup: SearchSetup, done: Sequence[Iteration] = ()
) -> tuple[TreeSearch, list[Iteration]]:
    search = TreeSearch(setup, setup.environment.tasks("train")[0])
    search.restore(done)
    iterations: list[Iteration] = []
    asyncio.run(search_tree(search, iterations.append))
    return search, iterations


def _seeded() -> SeededPolicy:
    return SeededPolicy(actions=["a", "b", "c"])


def test_one_in_flight_is_the_sequential_search() -> None:
    sequential, _ = _search(_setup(_seeded(), 1))
    jittery, _ = _search(_setup(JitteryPolicy(actions=["a", "b", "c"]), 1))
    assert sequential.tree == jittery.tree


@pytest.mark.parametrize("leaves", [2, 4, 16])
def test_the_tree_does_not_depend_on_which_answer_comes_first(leaves: int) -> None:
    calm, calm_iterations = _search(_setup(_seeded(), leaves))
    policy = JitteryPolicy(actions=["a", "b", "c"])
    jittery, iterations = _search(_setup(policy, leaves))
    assert jittery.tree == calm.tree
    assert iterations == calm_iterations
    assert 1 < policy.most_in_flight <= leaves
    assert len({each.selected for each in iterations if each.children}) == sum(
        bool(each.children) for each in iterations
    )


@pytest.mark.parametrize("leaves", [2, 5])
def test_going_on_from_any_iteration_gives_the_same_tree(leaves: int) -> None:
    setup = _setup(_seeded(), leaves)
    whole, iterations = _search(setup)
    assert len(iterations) == 24
    for num_done in range(0, 25, 3):
        resumed, rest = _search(setup, iterations[:num_done])
        assert rest == iterations[num_done:]
        assert resumed.tree == whole.tree


def test_a_stored_tree_that_another_search_made_is_refused() -> None:
    _, iterations = _search(_setup(_seeded(), 4))
    with pytest.raises(StoreError, match=r"expanded node \d+, this search would expand"):
        _search(_setup(_seeded(), 1), iterations)


def test_a_success_ends_the_tree_and_the_others_in_flight_are_given_up() -> None:
    search, iterations = _search(_setup(_seeded(), 8, stop_at_success=True))
    assert iterations[-1].is_success
    assert not any(each.is_success for each in iterations[:-1])
    assert search.end_reason == "success"


class _AnswersLater(PlannedPolicy):
    """Does not answer the n-th request at first."""

    def __init__(self, answers: Mapping[str, Sequence[str]], at: int) -> None:
        super().__init__(answers)
        self.at = at

    async def propose(self, *args: Any, **options: Any) -> list[Proposal]:  # noqa: ANN401
        if len(self.requests) == self.at:
            self.at = -1
            raise PolicyFailure("busy")
        return await super().propose(*args, **options)


@pytest.mark.parametrize("leaves", [1, 2])
def test_a_failed_try_is_spent_but_in_neither_the_iteration_nor_the_cost_of_the_tree(
    leaves: int,
) -> None:
    # The expansion brings a and b, the rollout ends at ac; at first it gets no answer.
    policy = _AnswersLater({"": ["a", "b"], "a": ["c"]}, at=1)
    spec = SearchSpec(num_candidates=2, num_iterations=1, leaves_in_flight=leaves)
    setup = make_setup(LetterWorld(rewards={"ac": 0.5}), policy, spec)

    async def try_twice() -> tuple[TreeSearch, Iteration]:
        search = TreeSearch(setup, setup.environment.tasks("train")[0])
        with pytest.raises(PolicyFailure, match="busy"):
            await search.iterate()
        iteration = await search.iterate()
        await search.close()
        return search, iteration

    search, iteration = asyncio.run(try_twice())
    assert iteration.cost == Cost(requests=2, generated_tokens=2 + 1)
    assert search.cost == iteration.cost
    assert search.spent == Cost(requests=3, generated_tokens=2 + 2 + 1)


def test_stored_iterations_are_of_the_trees_cost_but_not_spent_again() -> None:
    setup = _setup(_seeded(), 2)
    whole, iterations = _search(setup)
    resumed, rest = _search(setup, iterations[:20])
    assert resumed.cost == whole.cost == whole.spent
    assert resumed.spent == sum((each.cost for each in rest), start=Cost())


def test_unobserved_visits_count_and_busy_leaves_are_passed_by() -> None:
    tree = SearchTree(truncation_reward=-1.0)
    good, bad = (tree.add(ROOT, make_step(name)) for name in ("good", "bad"))
    for node, reward in ((good, 1.0), (bad, 0.0)):
        tree.backup(node.index, reward)
    below = [tree.add(good.index, make_step(name)) for name in ("x", "y", "z")]
    pending = Pending()
    selected = []
    for _ in range(4):
        leaf = Descent().select(tree, pending)
        assert leaf is not None
        selected.append(leaf)
        pending.add(tree, leaf)
    # ln 2 = 0.6931: good 1 + sqrt(1.3863) = 2.18 before bad 0 + 1.18, so x comes first. With x in
    # flight N(root) + O = 3 and N(good) + O = 2: good 1 + sqrt(2 * 1.0986 / 2) = 2.05, bad 1.48:
    # y. Then 4 and 3: good 1 + sqrt(2 * 1.3863 / 3) = 1.96, bad 1.67: z. Good is full: bad.
    assert selected == [*(node.index for node in below), bad.index]
    assert Descent().select(tree, pending) is None
    pending.remove(tree, below[1].index)
    assert Descent().select(tree, pending) == below[1].index


def test_ends_in_flight_count_their_visits_too() -> None:
    tree = SearchTree(truncation_reward=-1.0)
    ends = [tree.add(ROOT, make_step(name, 0.5)) for name in "ab"]
    for node in ends:
        tree.backup(node.index, 0.5)
    pending = Pending()
    descent = Descent(revisit_ends=True)
    selected = []
    for _ in range(4):
        leaf = descent.select(tree, pending)
        assert leaf is not None
        selected.append(leaf)
        pending.add(tree, leaf)
    assert selected == [1, 2, 1, 2]


def test_with_nothing_in_flight_it_is_uct() -> None:
    tree = SearchTree(truncation_reward=-1.0)
    children = [tree.add(ROOT, make_step(name)) for name in "abc"]
    rng = random.Random(0)
    for _ in range(50):
        leaf = Descent().select(tree)
        assert leaf == Descent().select(tree, Pending())
        assert leaf is not None
        tree.backup(leaf, rng.random())
    assert all(child.visits > 5 for child in children)
