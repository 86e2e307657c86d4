import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from lit_qagent.agents.episode import Episode, EpisodeCut, play_episode
from lit_qagent.agents.guided import GuidedAgent, propose_actions
from lit_qagent.agents.prompts import PromptSpec, start_history
from lit_qagent.agents.selection import (
    AdaptiveQSelector,
    FirstSelector,
    OracleSelector,
    QSelector,
    RandomSelector,
    Scorer,
    Selector,
)
from lit_qagent.core.errors import ConfigError, ContextOverflow, PolicyFailure
from lit_qagent.core.records import (
    Constraint,
    History,
    Message,
    Observation,
    Proposal,
    RequestCost,
    Sampling,
    Step,
)
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.policies.base import Policy
from lit_qagent.policies.scripted import ScriptedPolicy
from tests.toy_players import TightPolicy, WordPolicy, WordScorer, make_agent


class CountingWorld(ToyWorld):
    """Counts the steps of all its branches."""

    counts: list[str]

    def step(self, action: str) -> Step:
        self.counts.append(action)
        return super().step(action)


class ForgetfulPolicy(Policy):
    """Has room for a number of messages only."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        if len(messages) > self.room:
            raise ContextOverflow(f"{len(messages)} messages")
        return [Proposal(text=messages[1].content, num_tokens=1)] * n

    def settings(self) -> dict[str, Any]:
        return {}


def _message(text: str) -> Message:
    return Message(role="user", content=text)


def _agent(num_candidates: int) -> GuidedAgent:
    return make_agent(
        ScriptedPolicy(mode="uniform"),
        selector=RandomSelector(),
        num_candidates=num_candidates,
        prompt=PromptSpec(think=False, num_examples=0, constrain=True),
    )


def test_five_candidates_cost_one_request_and_one_environment_step_per_decision() -> None:
    world = CountingWorld()
    world.counts = []
    agent = _agent(5)
    episode = asyncio.run(play_episode(agent, world, world.tasks("test")[0], seed=0))
    num_decisions = len(episode.decisions)
    assert num_decisions == len(episode.trajectory.steps) >= 3
    assert world.counts == [step.action for step in episode.trajectory.steps]
    assert world.counts == [decision.action for decision in episode.decisions]
    assert all(len(decision.proposed.proposals) == 5 for decision in episode.decisions)
    assert episode.usage.requests == num_decisions == agent.policy.usage.requests


def test_an_episode_leaves_the_given_world_alone_and_repeats_with_its_seed() -> None:
    world = ToyWorld()
    task = world.tasks("test")[0]
    first = asyncio.run(play_episode(_agent(3), world, task, seed=1))
    again = asyncio.run(play_episode(_agent(3), world, task, seed=1))
    assert first.trajectory == again.trajectory
    assert world._task is None


def test_the_oldest_steps_are_left_out_until_the_prompt_fits_and_are_counted() -> None:
    turns = tuple(_message(text) for text in ("a1", "o1", "a2", "o2", "a3", "o3"))
    history = History(head=(_message("task"),), turns=turns)
    proposed = asyncio.run(
        propose_actions(ForgetfulPolicy(4), history, 1, Sampling(), constraint=None, seed=0)
    )
    # 7 messages, room for 4: two steps of two messages go, and the third step comes first
    assert proposed.dropped_steps == 2
    assert proposed.proposals[0].text == "a3"


def test_a_head_that_does_not_fit_is_an_error() -> None:
    history = History(head=(_message("system"), _message("task")), turns=())
    with pytest.raises(ContextOverflow):
        asyncio.run(
            propose_actions(ForgetfulPolicy(1), history, 1, Sampling(), constraint=None, seed=0)
        )


class TossScorer:
    """Finds all candidates alike, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        self.asked += candidates
        return [0.0] * len(candidates)


def _word_agent(
    selector: Selector,
    num_candidates: int,
    policy: Policy | None = None,
    scorer: Scorer | None = None,
) -> GuidedAgent:
    return make_agent(
        policy or WordPolicy(), selector=selector, num_candidates=num_candidates, scorer=scorer
    )


def _counting_world() -> CountingWorld:
    world = CountingWorld(num_actions=8)
    world.counts = []
    return world


def test_adaptive_asks_again_while_in_doubt_and_scores_nothing_twice() -> None:
    policy, scorer = WordPolicy(), TossScorer()
    agent = _word_agent(AdaptiveQSelector(first=2, more=3, margin=0.5), 8, policy=policy)
    world = _counting_world()
    world.reset(world.tasks("test")[0])
    history = start_history(world, agent.prompt)

    decision = asyncio.run(agent.decide(history, world.observation, seed=3, scorer=scorer))

    assert [n for _, n, _ in policy.calls] == [2, 3, 3]
    proposed = decision.proposed
    assert [p.text for p in proposed.proposals] == [text for _, _, t in policy.calls for text in t]
    assert sorted(scorer.asked) == sorted({p.text for p in proposed.proposals})
    # Three requests, each with the prompt of 20 tokens; 8 candidates of 3.
    assert proposed.cost == RequestCost(requests=3, prompt_tokens=60, generated_tokens=24)


def test_a_decision_that_an_error_cuts_off_is_counted_with_all_that_it_lost() -> None:
    class Dying(WordPolicy):
        """Answers once."""

        async def propose(self, *args: Any, **options: Any) -> list[Proposal]:  # noqa: ANN401
            if self.calls:
                raise PolicyFailure("gone")
            return await super().propose(*args, **options)

    world = _counting_world()
    selector = AdaptiveQSelector(first=4, margin=9.0)
    agent = _word_agent(selector, 8, policy=TightPolicy(Dying()), scorer=WordScorer())

    with pytest.raises(EpisodeCut) as cut:
        asyncio.run(play_episode(agent, world, world.tasks("test")[0], seed=0))

    assert cut.value.episode.usage.requests == 1
    assert cut.value.episode.cut_candidates == 4


def test_adaptive_costs_one_environment_step_per_decision_and_less_where_q_is_sure() -> None:
    world = _counting_world()
    policy = WordPolicy()
    agent = _word_agent(
        AdaptiveQSelector(first=2, more=2, margin=0.5), 8, policy=policy, scorer=WordScorer()
    )

    episode = asyncio.run(play_episode(agent, world, world.tasks("test")[0], seed=0))

    assert world.counts == [decision.action for decision in episode.decisions]
    assert episode.extra_steps == 0
    sampled = [len(decision.proposed.proposals) for decision in episode.decisions]
    assert min(sampled) < max(sampled) <= 8
    assert episode.usage.requests == len(policy.calls) > len(episode.decisions)


def test_the_oracle_finds_what_the_world_rewards_and_counts_every_step() -> None:
    world = _counting_world()
    policy = WordPolicy()
    agent = _word_agent(OracleSelector(rollouts=2), 6, policy=policy)

    episode = asyncio.run(play_episode(agent, world, world.tasks("test")[0], seed=1))

    assert len(world.counts) == len(episode.trajectory.steps) + episode.extra_steps
    assert episode.extra_steps > len(episode.decisions)
    assert episode.usage.requests == len(policy.calls)
    # At the last word an action's true return is the reward itself: right words 1/3 better.
    last = episode.decisions[-1]
    wanted = world.tasks("test")[0].data["target"]
    scores = last.selection.scores
    assert scores is not None
    right = [text.text == f"pick[{wanted[-1]}]" for text in last.proposed.proposals]
    assert len(set(scores)) == len(set(right))
    for score, is_right in zip(scores, right, strict=True):
        assert (score == max(scores)) == (is_right or not any(right))
    assert episode.trajectory.reward == max(scores)


def test_what_the_oracle_had_to_leave_out_when_looking_ahead_is_counted() -> None:
    world, policy = ToyWorld(), WordPolicy()
    agent = _word_agent(OracleSelector(), 1, policy=TightPolicy(policy))

    episode = asyncio.run(play_episode(agent, world, world.tasks("test")[0], seed=0))

    # Three decisions, and behind them two, one and no request to look ahead.
    assert episode.cut_candidates == len(policy.calls) == 3 + 2 + 1
    # Of every prompt for a third action one step is left out.
    assert episode.dropped_steps == 3


def test_the_oracle_keeps_the_true_reward_of_each_rollout() -> None:
    def play(rollouts: int) -> Episode:
        world = ToyWorld()
        agent = _word_agent(OracleSelector(rollouts=rollouts), 6)
        return asyncio.run(play_episode(agent, world, world.tasks("test")[0], seed=1))

    selection = play(3).decisions[0].selection

    assert selection.scores is not None
    assert selection.returns is not None
    assert [len(some) for some in selection.returns] == [3] * 6
    assert [sum(some) / 3 for some in selection.returns] == pytest.approx(selection.scores)
    # Two more words are drawn behind the first: the rollouts differ in them.
    assert any(len(set(some)) > 1 for some in selection.returns)
    # A rollout is the same whatever their number, so the first one alone is the one of one.
    assert play(1).decisions[0].selection.returns == tuple(some[:1] for some in selection.returns)
    first = _word_agent(FirstSelector(), 2)
    world = ToyWorld()
    plain = asyncio.run(play_episode(first, world, world.tasks("test")[0], seed=1))
    assert plain.decisions[0].selection.returns is None


def test_the_oracle_is_no_worse_than_the_first_of_the_same_candidates() -> None:
    world = ToyWorld()
    rewards = {"oracle": 0.0, "first": 0.0}
    for task in world.tasks("test"):
        for name, selector in (("oracle", OracleSelector()), ("first", FirstSelector())):
            agent = _word_agent(selector, 4)
            episode = asyncio.run(play_episode(agent, world, task, seed=0))
            rewards[name] += episode.trajectory.reward
    assert rewards["oracle"] > rewards["first"] + 2


def test_notes_reach_the_policy_and_not_the_scorer() -> None:
    class HistoryScorer(TossScorer):
        async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
            self.asked += [message.content for message in history.messages]
            return [0.0] * len(candidates)

    scorer, seen = HistoryScorer(), []

    def script(messages: Sequence[Message], choices: Sequence[str], rng: random.Random) -> str:
        seen.append(messages[-1].content)
        return "a"

    agent = _word_agent(QSelector(), 1, policy=ScriptedPolicy(script=script), scorer=scorer)
    history = History(head=(_message("Pick red."),))
    asyncio.run(agent.decide(history, Observation(text=""), seed=0, notes=["Not blue.", "Hurry."]))

    assert seen == [
        "Pick red.\n\nNotes from your earlier attempts at this task:\n- Not blue.\n- Hurry."
    ]
    assert scorer.asked == ["Pick red."]


def test_no_candidate_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_candidates must be >= 1 for FirstSelector, got 0"):
        make_agent(WordPolicy(), num_candidates=0)
