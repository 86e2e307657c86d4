import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lit_qagent.agents.episode import Episode, EpisodeCut, play_episode
from lit_qagent.agents.trials import BestOfTrials, Reflexion, SingleTrial, Trials
from lit_qagent.core.errors import ConfigError, ContextOverflow, EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import (
    Constraint,
    Message,
    Observation,
    Proposal,
    Sampling,
    Step,
    Task,
)
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.policies.base import Policy
from lit_qagent.policies.scripted import ScriptedPolicy
from tests.toy_players import TightPolicy, WordPolicy, make_agent


class CountingWorld(ToyWorld):
    """Counts the steps of all its branches."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[str] = []

    def step(self, action: str) -> Step:
        self.counts.append(action)
        return super().step(action)


class Learner:
    """Picks wrong words until a note tells it better; remembers the questions about failures."""

    def __init__(self, task: Task, solves_after: int) -> None:
        self.wanted = task.data["target"]
        self.solves_after = solves_after
        self.reflections: list[Sequence[Message]] = []
        self.prompts: list[str] = []

    def __call__(
        self, messages: Sequence[Message], choices: Sequence[str], rng: random.Random
    ) -> str:
        if "what went wrong" in messages[-1].content:
            self.reflections.append(messages)
            return f"Lesson\n {len(self.reflections)}."
        self.prompts.append(messages[1].content)
        steps = (len(messages) - 2) // 2
        knows = messages[1].content.count("Lesson") >= self.solves_after
        words = messages[-1].content.rsplit(": ", 1)[1].split(", ") if not knows else self.wanted
        wrong = next((word for word in words if word != self.wanted[steps]), words[0])
        return f"pick[{self.wanted[steps] if knows else wrong}]"


def _play(trials: Trials, policy: Policy, world: ToyWorld, seed: int = 0) -> Episode:
    return asyncio.run(trials.play(make_agent(policy), world, world.tasks("test")[0], seed=seed))


def test_a_single_trial_is_the_episode_itself() -> None:
    world = ToyWorld()
    agent = make_agent(WordPolicy())
    episode = asyncio.run(play_episode(agent, world, world.tasks("test")[0], seed=4))

    assert _play(SingleTrial(), WordPolicy(), world, seed=4) == episode
    assert (episode.extra_steps, episode.num_trials) == (0, 1)


def test_the_best_of_five_is_the_best_and_bears_the_cost_of_all() -> None:
    world, policy = CountingWorld(), WordPolicy()
    task = world.tasks("test")[0]
    seeds = [0, *(derive_seed(0, "trial", number) for number in range(1, 5))]
    alone = [
        asyncio.run(play_episode(make_agent(WordPolicy()), world, task, seed=seed))
        for seed in seeds
    ]
    rewards = [episode.trajectory.reward for episode in alone]
    assert len(set(rewards)) > 1
    assert max(rewards) < 1
    world.counts.clear()

    best = _play(BestOfTrials(5), policy, world)

    assert best.trajectory == alone[rewards.index(max(rewards))].trajectory
    assert best.num_trials == 5
    assert len(world.counts) == len(best.trajectory.steps) + best.extra_steps
    assert best.usage.requests == len(policy.calls) == len(world.counts)


def test_what_the_policy_had_to_leave_out_is_counted_in_all_trials() -> None:
    # A head of two messages and two per step: the third decision drops a step.
    policy = WordPolicy()

    best = _play(BestOfTrials(2), TightPolicy(policy), CountingWorld())

    assert not best.trajectory.success
    assert best.cut_candidates == best.usage.requests == len(policy.calls) == 6
    assert best.dropped_steps == 2


def test_a_note_that_leaves_out_steps_is_counted_and_is_no_candidate() -> None:
    world = CountingWorld()
    learner = Learner(world.tasks("test")[0], solves_after=99)
    policy = TightPolicy(ScriptedPolicy(script=learner))

    episode = _play(Reflexion(num_trials=2), policy, world)

    assert (episode.num_trials, episode.usage.requests) == (2, 3 + 1 + 3)
    # Three steps lie before the question about the failure, with room for one.
    assert (episode.cut_candidates, episode.dropped_steps) == (6, 1 + 2 + 1)


def test_a_question_without_room_beside_the_last_step_is_not_asked() -> None:
    class Narrow(TightPolicy):
        """Has no room for the question about a failure."""

        async def propose(
            self,
            messages: Sequence[Message],
            *args: Any,  # noqa: ANN401
            **kwargs: Any,  # noqa: ANN401
        ) -> list[Proposal]:
            if "what went wrong" in messages[-1].content:
                raise ContextOverflow("too long")
            return await super().propose(messages, *args, **kwargs)

    world = CountingWorld()
    learner = Learner(world.tasks("test")[0], solves_after=1)

    episode = _play(Reflexion(num_trials=2), Narrow(ScriptedPolicy(script=learner)), world)

    assert (episode.num_trials, episode.usage.requests, learner.reflections) == (2, 3 + 3, [])
    assert not any("Lesson" in prompt for prompt in learner.prompts)


def test_reflexion_reads_its_notes_and_ends_at_the_first_success() -> None:
    world = CountingWorld()
    learner = Learner(world.tasks("test")[0], solves_after=2)

    episode = _play(Reflexion(num_trials=5), ScriptedPolicy(script=learner), world)

    assert episode.trajectory.success
    assert (episode.num_trials, len(learner.reflections)) == (3, 2)
    assert learner.prompts[0].count("Lesson") == 0
    assert "- Lesson 1.\n- Lesson 2." in learner.prompts[-1]
    # One step per decision in each of the three trials, and a request for each and each note.
    assert len(world.counts) == len(learner.prompts) == 9
    assert episode.extra_steps == 6
    assert episode.usage.requests == 9 + 2
    roles = [message.role for message in learner.reflections[0]]
    assert roles[1:] == ["user", "assistant", "user", "assistant", "user", "assistant", "user"]


def test_reflexion_gives_up_and_shows_only_its_newest_notes() -> None:
    world = CountingWorld()
    learner = Learner(world.tasks("test")[0], solves_after=99)

    episode = _play(Reflexion(num_trials=4, num_notes=2), ScriptedPolicy(script=learner), world)

    assert not episode.trajectory.success
    assert (episode.num_trials, len(learner.reflections)) == (4, 3)
    assert "- Lesson 2.\n- Lesson 3." in learner.prompts[-1]
    assert "Lesson 1" not in learner.prompts[-1]


class DyingPolicy(WordPolicy):
    """Answers so many times, then never again."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers = answers

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        if len(self.calls) == self.answers:
            raise PolicyFailure("no answer")
        return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)


@pytest.mark.parametrize("answers", [0, 2, 5, 8])
def test_a_cut_episode_keeps_its_steps_and_the_cost_of_earlier_trials(answers: int) -> None:
    world, policy = CountingWorld(), DyingPolicy(answers)

    with pytest.raises(EpisodeCut) as cut:
        _play(BestOfTrials(4), policy, world)

    episode = cut.value.episode
    assert isinstance(cut.value.__cause__, PolicyFailure)
    # Three steps a trial; what is listed is the trial that was cut.
    assert len(episode.trajectory.steps) == answers % 3
    assert episode.extra_steps == answers - answers % 3
    assert episode.usage.requests == answers == len(world.counts)
    assert episode.num_trials == answers // 3 + 1


class FragileWorld(CountingWorld):
    """Breaks at a start."""

    def __init__(self, breaks_at: int) -> None:
        super().__init__()
        self.breaks_at = breaks_at
        self.starts: list[str] = []

    def _start(self, task: Task) -> Observation:
        self.starts.append(task.task_id)
        if len(self.starts) == self.breaks_at:
            raise EnvironmentFailure("gone")
        return super()._start(task)


@pytest.mark.parametrize(("trials", "requests"), [(BestOfTrials(4), 6), (Reflexion(4), 6 + 2)])
def test_a_world_that_breaks_at_the_start_of_a_trial_leaves_the_cost_of_those_before(
    trials: Trials, requests: int
) -> None:
    world = FragileWorld(breaks_at=3)
    learner = Learner(world.tasks("test")[0], solves_after=99)

    with pytest.raises(EpisodeCut) as cut:
        _play(trials, ScriptedPolicy(script=learner), world)

    episode = cut.value.episode
    assert isinstance(cut.value.__cause__, EnvironmentFailure)
    assert (episode.num_trials, episode.usage.requests) == (2, requests)
    # What is listed is the trial before.
    assert len(episode.trajectory.steps) == episode.extra_steps == 3


def test_a_world_that_breaks_at_the_first_start_leaves_nothing() -> None:
    with pytest.raises(EnvironmentFailure, match="gone"):
        _play(BestOfTrials(4), WordPolicy(), FragileWorld(breaks_at=1))


def test_a_note_that_is_never_written_cuts_the_episode_with_its_cost() -> None:
    with pytest.raises(EpisodeCut) as cut:
        _play(Reflexion(), DyingPolicy(3), CountingWorld())

    assert len(cut.value.episode.trajectory.steps) == cut.value.episode.usage.requests == 3


def test_what_they_use_is_said() -> None:
    assert SingleTrial.uses == ""
    assert BestOfTrials.uses == "the true reward"
    assert Reflexion.uses == "the success of earlier trials"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BestOfTrials(1), "BestOfTrials.num_trials must be >= 2, got 1; leave trials out"),
        (lambda: Reflexion(0), "Reflexion.num_trials must be >= 2, got 0"),
        (lambda: Reflexion(num_notes=0), "must be >= 1, got 0 and 96"),
    ],
)
def test_a_value_out_of_range_is_refused(make: Callable[[], Trials], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
