"""Worlds and policies that kill the process they are in, and a cluster without processes."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_collection.cli import make_parser
from data_collection.collect import choose_tasks, collect
from data_collection.executors.base import Executor, Searches
from data_collection.executors.engine_actor import EngineActor, Started
from data_collection.executors.engine_client import EngineClient, EnginePool
from data_collection.executors.lost import ActorGone, ActorLost
from data_collection.executors.places import Places
from data_collection.executors.recipe import build_policy, build_setup, take_recipe
from data_collection.executors.remote_search import Handing
from data_collection.executors.remote_searches import RemoteSearches
from data_collection.executors.search_actor import Load, SearchActor
from data_collection.iterations import Iteration, TreeHeader
from data_collection.setup import SearchSetup
from data_collection.store import TreeStore
from data_collection.summary import Summary
from lit_qagent.core.errors import QAgentError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, Task
from lit_qagent.environments.base import Outcome
from tests.data_collection.parts import LetterWorld, SeededPolicy

REWARDS = {"abc": 1.0, "bca": 0.5, "cab": 0.25}
PARTS = "tests.data_collection.executors.cluster_parts"


def die_once(flag: str) -> None:
    """Kill this process, unless it was done before."""
    if flag and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)


class FragileWorld(LetterWorld):
    """Kills its process: once at a word, or always in one task. What is said is as in its base.

    Args:
        flag: File that says it was done; empty for never.
        word: The state that kills.
        fatal: Id of a task whose every second step kills; empty for none.
    """

    def __init__(
        self, *, num_tasks: int = 6, flag: str = "", word: str = "bb", fatal: str = ""
    ) -> None:
        super().__init__(rewards=REWARDS, num_tasks=num_tasks)
        self.flag = flag
        self.word = word
        self.fatal = fatal

    def _act(self, command: str) -> Outcome:
        if self._state + command == self.word:
            die_once(self.flag)
        if self.fatal and self.task.task_id == self.fatal and len(self._state) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._act(command)


class FragilePolicy(SeededPolicy):
    """Kills its process once, at a certain request.

    Args:
        flag: File that says it was done; empty for never.
        request: Which request.
    """

    def __init__(
        self, *, actions: Sequence[str] = ("a", "b", "c"), flag: str = "", request: int = 40
    ) -> None:
        super().__init__(actions=actions, delay_s=0.002)
        self.flag = flag
        self.request = request

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        if len(self.seeds) == self.request:
            die_once(self.flag)
        return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)


def recipe(
    world: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    **changes: object,
) -> dict[str, Any]:
    """The values of a config: letters, drawn by the seed."""
    return {
        "environment": {"class_path": f"{PARTS}.FragileWorld", "init_args": dict(world or {})},
        "policy": {"class_path": f"{PARTS}.FragilePolicy", "init_args": dict(policy or {})},
        "search": {"num_iterations": 12, "stop_at_success": False},
        "prompt": {"think": False, "num_examples": 0},
        "sampling": {},
        "seed": 0,
        **changes,
    }


def setup_of(values: Mapping[str, Any]) -> SearchSetup:
    """What the command makes of a config."""
    setup = build_setup(values, build_policy(values))
    return SearchSetup(**{**vars(setup), "recipe": values})


def run(setup: SearchSetup, folder: Path, executor: Executor | None = None, **more: Any) -> Summary:  # noqa: ANN401 (options of collect)
    """Collect all tasks, four at a time."""
    tasks = choose_tasks(setup, "train", 0, None)
    more.setdefault("concurrency", 4)
    return collect(setup, tasks, TreeStore(folder), executor=executor, **more)


def files(folder: Path) -> dict[str, bytes]:
    """The files of a store that say what was found, and how it was made."""
    found = {path.name: path.read_bytes() for path in (folder / "trees").iterdir()}
    return found | {"manifest": (folder / "manifest.json").read_bytes()}


def parse_collect(arguments: Sequence[str]) -> Any:  # noqa: ANN401 (a namespace)
    """What the parser makes of the options of collect."""
    parser = make_parser()
    return parser.instantiate(parser.parse_args(["collect", *arguments])).collect


class FakeEngine:
    """An engine actor in this process, which dies when told to.

    Args:
        values: Of the config.
        deaths: Numbers of the requests that kill it.
    """

    def __init__(self, values: Mapping[str, Any], deaths: Sequence[int] = ()) -> None:
        self.values = values
        self.deaths = set(deaths)
        self.num_asked = 0
        self.actor = EngineActor({"policy": values["policy"]}, ".")

    async def propose(self, *request: Any) -> list[Proposal] | QAgentError:  # noqa: ANN401
        self.num_asked += 1
        if self.num_asked in self.deaths:
            self.actor = EngineActor({"policy": self.values["policy"]}, ".")
            raise ActorLost("killed")
        return await self.actor.propose(*request)


class FakeSearcher:
    """A search actor in this process, which dies when told to and is then as new.

    Args:
        values: Of the config.
        engines: Who answers.
        deaths: Numbers of the iterations that kill it.
        fatal: Id of a task that always kills it.
        restarts: How often it comes back.
        later: The values from its first death on; the same if not given.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        engines: Sequence[FakeEngine],
        *,
        deaths: Sequence[int] = (),
        fatal: str = "",
        restarts: int = 100,
        later: Mapping[str, Any] | None = None,
    ) -> None:
        self.later = later or values
        self.values = {name: value for name, value in values.items() if name != "policy"}
        self.engines = engines
        self.deaths = set(deaths)
        self.fatal = fatal
        self.restarts = restarts
        self.num_iterations = 0
        self.num_deaths = 0
        self.actor = SearchActor(self.values, ".")

    async def start(self) -> Started | QAgentError:
        self._check()
        return await self.actor.start(self.engines)

    async def open(
        self, task: Task, home: int, iterations: Sequence[Iteration]
    ) -> TreeHeader | QAgentError | None:
        self._check()
        return await self.actor.open(task, home, iterations)

    async def iterate(self, task_id: str, num_done: int) -> Iteration | QAgentError | None:
        self._check()
        self.num_iterations += 1
        if self.num_iterations in self.deaths or (task_id == self.fatal and num_done == 2):
            self.num_deaths += 1
            world = {name: value for name, value in self.later.items() if name != "policy"}
            self.actor = SearchActor(world, ".")
            self._check()
            raise ActorLost("killed")
        actor = self.actor
        answer = await actor.iterate(task_id, num_done)
        if actor is not self.actor:
            raise ActorLost("killed meanwhile")
        return answer

    async def close_search(self, task_id: str) -> None:
        await self.actor.close_search(task_id)

    async def load(self, limit: int | None) -> Load:
        return await self.actor.load(limit)

    def _check(self) -> None:
        if self.num_deaths > self.restarts:
            raise ActorGone("killed for good")


@dataclass
class FakeCluster(Executor):
    """All that the Ray executor does but Ray."""

    engine_deaths: Sequence[Sequence[int]] = ((), ())
    searcher_options: Sequence[Mapping[str, Any]] = ({}, {})
    max_losses: int = 3
    max_num_seqs: int | None = None
    engines: list[FakeEngine] = field(default_factory=list)
    searchers: list[FakeSearcher] = field(default_factory=list)

    @contextmanager
    def running(
        self, setup: SearchSetup, sequences_in_flight: int | None = None
    ) -> Iterator[Searches]:
        values = take_recipe(setup)
        self.engines = [FakeEngine(values, deaths) for deaths in self.engine_deaths]
        self.searchers = [
            FakeSearcher(values, self.engines, **options) for options in self.searcher_options
        ]
        for searcher in self.searchers:
            searcher.actor._setup = setup  # started; `start` is called again after a death
            searcher.actor._pool = EnginePool([EngineClient(each) for each in self.engines])
        places = Places(self.searchers, setup.environment.settings(), 5.0)
        yield RemoteSearches(
            setup.search,
            Handing(places=places, max_losses=self.max_losses),
            num_engines=len(self.engines),
            max_num_seqs=self.max_num_seqs,
            sequences_in_flight=sequences_in_flight,
            close_engines=self._close,
        )

    async def _close(self) -> None:
        for engine in self.engines:
            await engine.actor.close()
