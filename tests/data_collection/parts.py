"""A small world and two policies for the tests of the collector; nothing here is random by time."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_collection.iterations import Iteration, TreeEnd
from data_collection.search import TreeSearch, failure_of
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.errors import EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import Constraint, Message, Observation, Proposal, Sampling, Step, Task
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.policies.base import Policy


class LetterWorld(Environment):
    """Say letters; a leaf of ``rewards`` ends the episode with its reward.

    The state is the word so far, so each observation names its own branch.
    """

    name = "letters"
    version = "1"

    def __init__(
        self, *, rewards: Mapping[str, float], max_steps: int = 4, num_tasks: int = 1
    ) -> None:
        super().__init__(max_steps=max_steps)
        self.rewards = dict(rewards)
        self.num_tasks = num_tasks

    def tasks(self, split: str) -> Sequence[Task]:
        return [
            Task(task_id=f"{split}/{number}", instruction=f"Spell {number}.", split=split)
            for number in range(self.num_tasks)
        ]

    def instructions(self) -> str:
        return "Say one letter."

    def data_hash(self) -> str:
        return str(sorted(self.rewards.items()))

    def _start(self, task: Task) -> Observation:
        self._state = ""
        return Observation(text=f"{task.instruction} So far: ")

    def _act(self, command: str) -> Outcome:
        if len(command) != 1:
            return Outcome(observation=Observation(text=f"No letter: {command}"), valid=False)
        self._state += command
        reward = self.rewards.get(self._state)
        return Outcome(
            observation=Observation(text=f"So far: {self._state}"),
            reward=reward or 0.0,
            terminated=reward is not None,
        )


class SeededPolicy(Policy):
    """Draws each action from a list, by the seed of the request; the same seed draws the same."""

    def __init__(self, *, actions: Sequence[str], delay_s: float = 0.0) -> None:
        super().__init__()
        self.actions = list(actions)
        self.delay_s = delay_s
        self.seeds: list[int | None] = []
        self.is_closed = False
        self.most_in_flight = 0
        self._in_flight = 0

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        self.seeds.append(seed)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(self.delay_s)
        self._in_flight -= 1
        rng = random.Random(seed)
        proposals = [Proposal(text=rng.choice(self.actions), num_tokens=2) for _ in range(n)]
        return self.charge(proposals, prompt_tokens=10, generated_tokens=2 * n)

    def settings(self) -> dict[str, Any]:
        return {"name": "seeded", "actions": self.actions}

    async def close(self) -> None:
        self.is_closed = True


class PlannedPolicy(Policy):
    """Answers by the last message: a list of actions, of which one request takes the first n.

    A message without an answer is a failure.
    """

    def __init__(self, answers: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.answers = answers
        self.requests: list[tuple[str, int]] = []

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        asked = messages[-1].content.split(": ")[-1]
        self.requests.append((asked, n))
        if asked not in self.answers:
            raise PolicyFailure(f"no answer after {asked!r}")
        proposals = [Proposal(text=text, num_tokens=1) for text in self.answers[asked][:n]]
        return self.charge(proposals, prompt_tokens=0, generated_tokens=len(proposals))

    def settings(self) -> dict[str, Any]:
        return {"name": "planned"}


async def search_tree(search: TreeSearch, record: Callable[[Iteration], None]) -> TreeEnd:
    """Search a tree to its end, as the workers of a run do, and hand over every iteration."""
    try:
        while (reason := search.end_reason) is None:
            record(await search.iterate())
        return search.end(reason)
    except (PolicyFailure, EnvironmentFailure) as error:
        return search.end("failed", failure_of(error, search))
    finally:
        await search.close()


def make_setup(
    environment: Environment, policy: Policy, search: SearchSpec | None = None, *, seed: int = 0
) -> SearchSetup:
    return SearchSetup(
        environment=environment,
        policy=policy,
        search=search or SearchSpec(),
        prompt=PromptSpec(think=False, num_examples=0),
        sampling=Sampling(),
        seed=seed,
    )


def make_step(action: str, reward: float | None = None, *, truncated: bool = False) -> Step:
    """A step that ends the episode if it has a reward or is truncated."""
    return Step(
        action=action,
        observation=Observation(text=f"after {action}"),
        reward=reward or 0.0,
        terminated=reward is not None,
        truncated=truncated,
    )


def spell_setup(**search: bool | int | float) -> SearchSetup:
    """The search that `test_search` follows by hand: two letters, four ends."""
    world = LetterWorld(rewards={"ac": 0.0, "ad": 0.5, "bc": 0.25, "bd": 1.0})
    policy = PlannedPolicy({"": ["a", "b", " a"], "a": ["c", "d"], "b": ["c", "d"]})
    return make_setup(world, policy, SearchSpec(**{"num_candidates": 3, **search}))  # type: ignore[arg-type]
