"""Every world passes the checks, and the checks notice a world that breaks the contract."""

import copy
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Observation, Step, Task, Trajectory
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.conformance import check_environment
from lit_qagent.environments.hotpotqa import HotPotQA
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.environments.webshop import WebShop
from lit_qagent.environments.webshop.catalog import CatalogSpec
from lit_qagent.environments.webshop.engine import PageSpec
from tests.data_folder import data_file
from tests.lit_qagent.environments.hotpotqa.question_files import make_record, write_questions

SHOP: dict[str, Any] = {
    "catalog": CatalogSpec(num_products=30),
    "splits": SplitSizes(train=6, valid=2, test=2),
}


def read_commands(observation: Observation, rng: random.Random) -> str:
    """Draw a HotPotQA command: a page, a word or an answer."""
    titles = ["Aske River", "Vardholm", "Harbour", "nothing here"]
    pools = {"Search": titles, "Lookup": ["harbour", "it"], "Finish": ["Ines Brandt", "1874"]}
    verb = rng.choice(["Search", "Search", "Lookup", "Finish"])
    return f"Thought: I try this.\nAction: {verb}[{rng.choice(pools[verb])}]"


def shop_commands(observation: Observation, rng: random.Random) -> str:
    """Draw a click, or a query on the search page."""
    if observation.admissible:
        return rng.choice(observation.admissible)
    return f"search[{rng.choice(['shirt', 'red lamp', 'zebra'])}]"


def test_toy_world() -> None:
    check_environment(ToyWorld(), "train", num_tasks=10)


@pytest.mark.parametrize("actions", ["open", "listed"])
def test_hotpotqa(tmp_path: Path, actions: Literal["open", "listed"]) -> None:
    path = write_questions(tmp_path / "q.json", [make_record(number) for number in range(3)])
    world = HotPotQA(data={"train": path}, actions=actions)
    for seed in range(5):
        check_environment(world, "train", seed=seed, commands=read_commands)
    if actions == "listed":
        check_environment(world, "train")


@pytest.mark.parametrize("observation", ["compact", "text"])
@pytest.mark.parametrize("search", ["open", "listed"])
def test_webshop(
    observation: Literal["compact", "text"], search: Literal["open", "listed"]
) -> None:
    pages = PageSpec(page_size=4, observation=observation, search=search)
    check_environment(WebShop(**SHOP, pages=pages), "train", commands=shop_commands)


def test_webshop_without_ways_back() -> None:
    pages = PageSpec(page_size=4, search="listed", subpages=False, back_buttons=False)
    check_environment(WebShop(**SHOP, pages=pages), "valid")


@pytest.mark.integration
def test_hotpotqa_on_real_questions() -> None:
    data = {"dev": str(data_file("hotpotqa/dev.json"))}
    check_environment(HotPotQA(data=data, actions="listed"), "dev", num_tasks=3)


def test_a_world_without_listed_commands_needs_a_function(tmp_path: Path) -> None:
    path = write_questions(tmp_path / "q.json", [make_record(0)])
    with pytest.raises(ConfigError, match="give check_environment a `commands` function"):
        check_environment(HotPotQA(data={"train": path}), "train")


class SharedPicks(ToyWorld):
    """All branches pick into one list: mistakes 1 and 2 of the original."""

    def fork(self) -> Self:
        twin = copy.copy(self)
        twin._state = self._state
        return twin

    def _start(self, task: Task) -> Observation:
        observation = super()._start(task)
        self._state = []
        return observation

    def _act(self, command: str) -> Outcome:
        picks: list[str] = self._state
        self._state = tuple(picks)
        outcome = super()._act(command)
        if outcome.valid:
            picks.append(self._state[-1])
        self._state = picks
        return outcome


class ThreadBound(ToyWorld):
    """Says that it waits, but answers only the thread it was made in."""

    def __init__(self) -> None:
        super().__init__()
        self._home = threading.get_ident()

    @property
    def blocks(self) -> bool:
        return True

    def _act(self, command: str) -> Outcome:
        if threading.get_ident() != self._home:
            return Outcome(observation=Observation(text="Who are you?"), valid=False)
        return super()._act(command)


class ForgetfulReset(ToyWorld):
    """Keeps the first episode's words."""

    def _start(self, task: Task) -> Observation:
        kept = self._state
        observation = super()._start(task)
        self._state = kept or self._state
        return observation

    def reset(self, task: Task) -> Observation:
        kept = self._state
        super().reset(task)
        self._state = kept or self._state
        return self.observation


class Generous(ToyWorld):
    """Pays too much."""

    def _act(self, command: str) -> Outcome:
        outcome = super()._act(command)
        return Outcome(
            observation=outcome.observation,
            reward=2 * outcome.reward,
            terminated=outcome.terminated,
            valid=outcome.valid,
        )


class Early(ToyWorld):
    """Pays for every step."""

    def examples(self) -> Sequence[Trajectory]:
        return ()

    def _act(self, command: str) -> Outcome:
        outcome = super()._act(command)
        return Outcome(
            observation=outcome.observation,
            reward=0.5 if outcome.valid else 0.0,
            terminated=outcome.terminated,
            valid=outcome.valid,
        )


class Lying(ToyWorld):
    """Lists a command that it refuses."""

    def _start(self, task: Task) -> Observation:
        observation = super()._start(task)
        return Observation(
            text=observation.text, admissible=(*(observation.admissible or ()), "pick[moon]")
        )


class Gullible(ToyWorld):
    """Takes anything as a legal action."""

    def _act(self, command: str) -> Outcome:
        outcome = super()._act(command)
        return outcome if outcome.valid else Outcome(observation=self.observation)


class Fragile(ToyWorld):
    """Breaks on what it does not understand."""

    def _act(self, command: str) -> Outcome:
        if not command.isascii():
            raise UnicodeError(command)
        return super()._act(command)


class Endless(ToyWorld):
    """Goes on after the end."""

    def step(self, action: str) -> Step:
        if self.is_over:
            return self.trajectory.steps[-1]
        return super().step(action)


class Moody(ToyWorld):
    """Answers by chance."""

    def _act(self, command: str) -> Outcome:
        outcome = super()._act(command)
        text = f"{outcome.observation.text} {random.random()}"
        observation = Observation(text=text, admissible=outcome.observation.admissible)
        return Outcome(
            observation=observation,
            reward=outcome.reward,
            terminated=outcome.terminated,
            valid=outcome.valid,
        )


class Twins(ToyWorld):
    """Has the same task twice."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [*super().tasks(split), *super().tasks(split)[:1]]


class Hopeless(ToyWorld):
    """Shows an example that fails."""

    def examples(self) -> Sequence[Trajectory]:
        solved = super().examples()[0]
        return [
            Trajectory(
                task_id="half",
                first_observation=solved.first_observation,
                steps=solved.steps[:2],
            )
        ]


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (SharedPicks, "changed|disagree|gave|earlier|replaying|refused"),
        (ForgetfulReset, "reset|earlier episode"),
        (Generous, r"reward must be in \[0, 1\], got"),
        (Early, "a reward came before the end"),
        (Lying, r"'pick\[moon\]' is listed as admissible but refused"),
        (Gullible, "counts as valid"),
        (Endless, "a step after the end must raise EnvironmentFailure"),
        (Moody, "replaying"),
        (ThreadBound, "in a thread gave"),
        (Twins, "two tasks with one task_id"),
        (Hopeless, "example 'half' is not solved"),
    ],
)
def test_a_broken_world_is_noticed(world: type[ToyWorld], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_environment(world(), "train", num_tasks=10)


def test_an_exception_of_the_world_comes_through() -> None:
    with pytest.raises(UnicodeError):
        check_environment(Fragile(), "train")


class Deaf(Environment):
    """Never ends by itself and refuses everything, with a metric of its own at the limit."""

    name = "deaf"
    version = "1"

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(task_id="t", instruction="Say something.", split="train")]

    def instructions(self) -> str:
        return "Speak."

    def data_hash(self) -> str:
        return "deaf"

    def _start(self, task: Task) -> Observation:
        return Observation(text="...")

    def _act(self, command: str) -> Outcome:
        return Outcome(observation=self._invalid_observation(command), valid=False)

    def _metrics_at_limit(self) -> dict[str, Any]:
        return {"heard": 0.0}


def test_metrics_are_known_when_the_step_limit_ends_an_episode() -> None:
    world = Deaf(max_steps=2)
    world.reset(world.tasks("train")[0])
    assert world.step("hello").metrics == {}
    assert world.step("").metrics == {"heard": 0.0}
