"""What a search before acting has cost is counted, whatever cuts it off."""

import asyncio
from typing import Any

import pytest

from lit_qagent.agents.episode import Episode, EpisodeCut
from lit_qagent.core.errors import EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import (
    Observation,
    Proposal,
    Task,
    Usage,
)
from lit_qagent.environments.base import Outcome
from lit_qagent.policies.base import Policy
from tests.data_collection.parts import LetterWorld, PlannedPolicy, SeededPolicy
from tests.data_collection.search_agents import LETTERS, REWARDS, LetterScorer, play, search
from tests.toy_players import TightPolicy, make_agent


def test_a_policy_that_fails_cuts_the_episode_with_what_it_has_cost() -> None:
    class Dying(SeededPolicy):
        async def propose(self, *args: Any, **options: Any) -> list[Proposal]:  # noqa: ANN401
            if len(self.seeds) == 3:
                raise PolicyFailure("gone")
            return await super().propose(*args, **options)

    world = LetterWorld(rewards=REWARDS, max_steps=2)
    with pytest.raises(EpisodeCut) as cut:
        play(
            search(num_iterations=12, stop_at_success=False),
            world,
            make_agent(Dying(actions=LETTERS)),
        )
    assert isinstance(cut.value.__cause__, PolicyFailure)
    assert cut.value.episode.trajectory.steps == ()
    assert cut.value.episode.usage.requests == 3
    assert cut.value.episode.extra_steps > 0


def plan(world: LetterWorld, policy: Policy, **options: Any) -> Episode:  # noqa: ANN401
    """Play as `play` does; of an episode that is cut, return what was played."""
    try:
        return play(search(num_candidates=2, **options), world, make_agent(policy))
    except EpisodeCut as cut:
        return cut.episode


@pytest.mark.parametrize("leaves", [1, 4])
def test_answers_within_an_iteration_that_fails_are_paid_for(leaves: int) -> None:
    # Two letters, then the rollout acc: four answers. Behind that nobody answers.
    policy = PlannedPolicy({"": ["a", "b"], "a": ["c"], "ac": ["c"], "acc": ["c"]})

    cut = plan(LetterWorld(rewards={}, max_steps=9), policy, leaves_in_flight=leaves)

    assert cut.trajectory.steps == ()
    assert len(policy.requests) == 5
    # The expansion brought two actions, each step of the rollout one.
    assert cut.usage == Usage(requests=4, prompt_tokens=0, generated_tokens=2 + 1 + 1 + 1)


def test_finished_and_failed_iterations_are_paid_for_once() -> None:
    # Iteration 0: a, b and the end ac. Iteration 1: bc, behind which nobody answers.
    policy = PlannedPolicy({"": ["a", "b"], "a": ["c"], "b": ["c"]})

    cut = plan(LetterWorld(rewards={"ac": 0.5}), policy)

    assert policy.requests[-1] == ("bc", 1)
    assert cut.usage == Usage(requests=3, prompt_tokens=0, generated_tokens=2 + 1 + 1)
    assert cut.extra_steps == 2 + 1  # of iteration 0


def test_an_expansion_beside_the_one_that_succeeds_is_paid_for() -> None:
    # Iteration 0: a, b and the end ac. Then b and a at once, of which b brings the end bd.
    policy = PlannedPolicy({"": ["a", "b"], "a": ["c", "d"], "b": ["c", "d"]})
    world = LetterWorld(rewards={"ac": 0.0, "ad": 0.0, "bc": 0.0, "bd": 1.0})

    episode = plan(world, policy, leaves_in_flight=2)

    assert [step.action for step in episode.trajectory.steps] == ["b", "d"]
    assert policy.requests == [("", 2), ("a", 1), ("b", 2), ("a", 2)]
    assert episode.usage == Usage(requests=4, prompt_tokens=0, generated_tokens=2 + 1 + 2 + 2)


def test_of_an_iteration_that_is_given_up_the_answers_so_far_are_paid_for() -> None:
    class Hanging(PlannedPolicy):
        """Never answers a sixth request."""

        async def propose(self, *args: Any, **options: Any) -> list[Proposal]:  # noqa: ANN401
            if len(self.requests) == 5:
                self.requests.append(("hangs", 0))
                await asyncio.Event().wait()
            return await super().propose(*args, **options)

    # Iteration 0: a, b and the end acc. Then b and a at once; behind a a rollout hangs.
    policy = Hanging({"": ["a", "b"], "a": ["c", "d"], "ac": ["c"], "b": ["d", "c"]})
    world = LetterWorld(rewards={"acc": 0.0, "bd": 1.0})

    episode = plan(world, policy, leaves_in_flight=2)

    assert episode.trajectory.success
    assert [asked for asked, _ in policy.requests] == ["", "a", "ac", "b", "a", "hangs"]
    # What nobody answered is in no count of the policy either.
    assert episode.usage == policy.usage
    assert episode.usage.requests == 5


@pytest.mark.parametrize("leaves", [1, 2, 4])
def test_an_episode_costs_what_the_policy_was_paid(leaves: int) -> None:
    policy = SeededPolicy(actions=LETTERS)
    world = LetterWorld(rewards={"abc": 1.0, "bca": 0.5}, max_steps=5)

    episode = play(search(num_iterations=24, leaves_in_flight=leaves), world, make_agent(policy))

    assert episode.usage == policy.usage


def test_what_the_search_had_to_leave_out_is_counted() -> None:
    # Iteration 0: a, b and the rollout acd, whose last action leaves a step out.
    policy = TightPolicy(PlannedPolicy({"": ["a", "b"], "a": ["c"], "ac": ["d"]}))

    episode = plan(LetterWorld(rewards={"acd": 1.0}), policy)

    assert [step.action for step in episode.trajectory.steps] == ["a", "c", "d"]
    assert (episode.cut_candidates, episode.dropped_steps) == (2 + 1 + 1, 1)


def test_what_a_search_without_an_end_had_to_leave_out_is_counted() -> None:
    # Expands the start, a and ab, and finds no end; then the agent says six letters by itself.
    letters = {"": ["a"], "a": ["b"], "ab": ["c"], "abc": ["d"], "abcd": ["e"], "abcde": ["f"]}
    player = make_agent(TightPolicy(PlannedPolicy(letters)), scorer=LetterScorer("abcdef"))
    trials = search(variant="q_value", num_iterations=3)

    episode = play(trials, LetterWorld(rewards={}, max_steps=6), player)

    # Of three prompts of the search one leaves out a step, of the agent's six 0, 0, 1, 2, 3 and 4.
    assert (episode.cut_candidates, episode.dropped_steps) == (3 + 6, 1 + 10)


def test_what_a_search_that_fails_had_to_leave_out_is_counted() -> None:
    policy = TightPolicy(PlannedPolicy({"": ["a", "b"], "a": ["c"], "ac": ["d"]}))

    cut = plan(LetterWorld(rewards={}, max_steps=9), policy)

    assert (cut.cut_candidates, cut.dropped_steps) == (2 + 1 + 1, 1)


@pytest.mark.parametrize("breaks_at", ["reset", "step"])
def test_a_world_that_breaks_after_the_search_leaves_its_cost(breaks_at: str) -> None:
    class Breaking(LetterWorld):
        """Breaks when it is started anew, which the search does not do, or at the step after."""

        num_starts = 0

        def _start(self, task: Task) -> Observation:
            type(self).num_starts += 1
            if breaks_at == "reset" and self.num_starts > 1:
                raise EnvironmentFailure("gone")
            return super()._start(task)

        def _act(self, command: str) -> Outcome:
            if self.num_starts > 1:
                raise EnvironmentFailure("gone")
            return super()._act(command)

    policy = PlannedPolicy({"": ["a"]})

    cut = plan(Breaking(rewards={"a": 1.0}), policy)

    assert (cut.usage.requests, cut.extra_steps) == (1, 1)
    assert cut.trajectory.first_observation.text == "Spell 0. So far: "
