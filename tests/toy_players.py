"""A policy and a scorer for ToyWorld, agents, and played episodes made by hand."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lit_qagent.agents.guided import GuidedAgent
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.agents.selection import FirstSelector, QSelector, RandomSelector
from lit_qagent.core.errors import ContextOverflow, PolicyFailure
from lit_qagent.core.records import Constraint, History, Message, Proposal, Sampling
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.evaluation.episodes import PlayedEpisode, PlayedStep
from lit_qagent.evaluation.specs import AgentSpec, Evaluation, HeldOutSpec, PlaySpec
from lit_qagent.policies.base import Policy


class WordPolicy(Policy):
    """Draws among the words that ToyWorld offers; equal seeds draw equally.

    Args:
        temperament: Any value; stands for the settings of a real policy.
        delay: Seconds that an answer takes.
        fails_on: A word; a task that asks for it gets no answer.
    """

    def __init__(self, temperament: str = "calm", delay: float = 0, fails_on: str = "") -> None:
        super().__init__()
        self.temperament = temperament
        self.delay = delay
        self.fails_on = fails_on
        self.calls: list[tuple[tuple[Message, ...], int, list[str]]] = []
        self.in_flight = self.most_in_flight = 0
        self.closed = 0

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.delay)
        self.in_flight -= 1
        if self.fails_on and any(self.fails_on in _first_line(m) for m in messages):
            raise PolicyFailure("no answer after 3 tries")
        words = messages[-1].content.rsplit(": ", 1)[1].split(", ")
        rng = random.Random(seed)
        texts = [f"pick[{rng.choice(words)}]" for _ in range(n)]
        self.calls.append((tuple(messages), n, texts))
        proposals = [Proposal(text=text, num_tokens=3) for text in texts]
        return self.charge(proposals, prompt_tokens=20, generated_tokens=3 * n)

    def settings(self) -> dict[str, Any]:
        return {"name": "words", "temperament": self.temperament}

    async def close(self) -> None:
        self.closed += 1


class TightPolicy(Policy):
    """A policy with room for four messages in its context; the token limit cuts all it says."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        if len(messages) > 4:
            raise ContextOverflow(f"{len(messages)} messages")
        answers = await self.policy.propose(messages, n, sampling, constraint=constraint, seed=seed)
        return [replace(answer, finish_reason="length") for answer in answers]

    def settings(self) -> dict[str, Any]:
        return {"name": "tight", **self.policy.settings()}


class WordScorer:
    """Scores 1 for the word that the task asks for next, else 0: the best possible order."""

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        wanted = _first_line(history.head[-1]).removeprefix("Pick ").rstrip(".").split(", then ")
        next_word = wanted[min(history.num_steps, len(wanted) - 1)]  # steps may be invalid
        return [float(text == f"pick[{next_word}]") for text in candidates]


def _first_line(message: Message) -> str:
    return message.content.partition("\n")[0]


def make_evaluation(output: Path, **changes: Any) -> Evaluation:  # noqa: ANN401
    """Return a small evaluation of three agents; ``play`` and ``tasks`` take their own options."""
    play = {"output": output, "concurrency": 4, **changes.pop("play", {})}
    tasks = {"num_tasks": 4, "seeds": [0, 1], **changes.pop("tasks", {})}
    parts: dict[str, Any] = {
        "environment": ToyWorld(),
        "policy": WordPolicy(),
        "agents": {
            "plain": AgentSpec(selector=FirstSelector()),
            "random_of_n": AgentSpec(selector=RandomSelector(), num_candidates=4),
            "q_guided": AgentSpec(selector=QSelector(), num_candidates=4),
        },
        "sampling": Sampling(),
        "prompt": PromptSpec(think=False, num_examples=0),
        **changes,
    }
    return Evaluation(tasks=HeldOutSpec(**tasks), play=PlaySpec(**play), **parts)


def make_agent(policy: Policy, **changes: Any) -> GuidedAgent:  # noqa: ANN401
    """Return an agent that plays the one action its policy proposes."""
    parts: dict[str, Any] = {
        "selector": FirstSelector(),
        "num_candidates": 1,
        "sampling": Sampling(),
        "prompt": PromptSpec(think=False, num_examples=0),
        **changes,
    }
    return GuidedAgent(policy=policy, **parts)


def make_episode(agent: str, task_id: str, seed: int = 0, **changes: Any) -> PlayedEpisode:  # noqa: ANN401
    """Return an episode of two steps, the second one invalid."""
    step = PlayedStep(
        action="go", observation="seen", valid=True, candidates=["go"], scores=None, chosen=0
    )
    invalid = PlayedStep(
        action="?", observation="Invalid", valid=False, candidates=["?"], scores=[0.5], chosen=0
    )
    fields: dict[str, Any] = {"metrics": {}, "steps": [step, invalid], "seconds": 1.0, **changes}
    return PlayedEpisode(agent=agent, task_id=task_id, seed=seed, **fields)


def with_rewards(
    agent: str,
    rewards: Mapping[str, Sequence[float]],
    **changes: Any,  # noqa: ANN401
) -> list[PlayedEpisode]:
    """Return one episode per task and seed with these rewards."""
    return [
        make_episode(agent, task_id, seed, reward=reward, success=reward == 1.0, **changes)
        for task_id, some in rewards.items()
        for seed, reward in enumerate(some)
    ]
