import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lit_qagent.agents.episode import play_episode
from lit_qagent.agents.guided import GuidedAgent, propose_actions
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.agents.selection import FirstSelector, RandomSelector
from lit_qagent.core.errors import ConfigError, ContextOverflow
from lit_qagent.core.records import Constraint, History, Message, Proposal, Sampling, Step
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.policies.base import Policy
from lit_qagent.policies.scripted import ScriptedPolicy


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
    return GuidedAgent(
        policy=ScriptedPolicy(mode="uniform"),
        selector=RandomSelector(),
        num_candidates=num_candidates,
        sampling=Sampling(),
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


def test_no_candidate_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_candidates must be >= 1, got 0"):
        GuidedAgent(
            policy=ScriptedPolicy(mode="uniform"),
            selector=FirstSelector(),
            num_candidates=0,
            sampling=Sampling(),
            prompt=PromptSpec(),
        )
