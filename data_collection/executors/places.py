"""The search actors as the driver sees them: who is up, and how many trees each has."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from data_collection.executors.base import ClusterFailure
from data_collection.executors.engine_actor import Started
from data_collection.executors.lost import ActorGone, ActorLost
from data_collection.executors.search_actor import Load
from data_collection.iterations import Iteration, TreeHeader
from lit_qagent.core.errors import ConfigError, QAgentError
from lit_qagent.core.records import Task

_LOOK_AGAIN_S = 0.2


class Searcher(Protocol):
    """A search actor from afar; every method raises `ActorLost` if it died."""

    def start(self) -> Awaitable[Started | QAgentError]:
        """See `SearchActor.start`."""
        ...

    def open(
        self, task: Task, home: int, iterations: Sequence[Iteration]
    ) -> Awaitable[TreeHeader | QAgentError | None]:
        """See `SearchActor.open`."""
        ...

    def iterate(self, task_id: str, num_done: int) -> Awaitable[Iteration | QAgentError | None]:
        """See `SearchActor.iterate`."""
        ...

    def close_search(self, task_id: str) -> Awaitable[None]:
        """See `SearchActor.close_search`."""
        ...

    def load(self, limit: int | None) -> Awaitable[Load]:
        """See `SearchActor.load`."""
        ...


@dataclass(kw_only=True, eq=False)
class Place:
    """One search actor.

    Attributes:
        number: Its number.
        searcher: The actor.
        num_trees: Trees it has now.
        is_up: False from its death until it is back.
        is_gone: True if it will not come back.
    """

    number: int
    searcher: Searcher
    num_trees: int = 0
    is_up: bool = True
    is_gone: bool = False


class Places:
    """All search actors.

    Args:
        searchers: The actors, started.
        settings: Of the world; one that comes back must have the same.
        patience_s: How long to wait while none is up, in seconds.
        clock: Seconds; tests give their own.
    """

    def __init__(
        self,
        searchers: Sequence[Searcher],
        settings: Mapping[str, Any],
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.all = [Place(number=i, searcher=each) for i, each in enumerate(searchers)]
        self._settings = settings
        self._patience_s = patience_s
        self._clock = clock
        self._revivals: set[asyncio.Task[None]] = set()

    async def take(self) -> Place:
        """Return the actor with the fewest trees; wait until one is up.

        Raises:
            ClusterFailure: None is, and none comes back.
        """
        begin = self._clock()
        while True:
            up = [place for place in self.all if place.is_up]
            if up:
                place = min(up, key=lambda each: each.num_trees)
                place.num_trees += 1
                return place
            if all(place.is_gone for place in self.all):
                raise ClusterFailure(
                    f"all {len(self.all)} search actors have died and are not started again "
                    "(max_restarts); everything finished is kept"
                )
            if self._clock() - begin > self._patience_s:
                raise ClusterFailure(
                    f"no search actor has come back for {self._patience_s:.0f} s; everything "
                    "finished is kept"
                )
            await asyncio.sleep(_LOOK_AGAIN_S)

    def give_back(self, place: Place) -> None:
        """Note that an actor has one tree less."""
        place.num_trees -= 1

    def note_loss(self, place: Place, error: ActorLost) -> None:
        """Note that an actor died, and watch for its return."""
        if not place.is_up or place.is_gone:
            return
        place.is_up = False
        sys.stderr.write(
            f"search actor {place.number} was lost; its trees are handed out again ({error})\n"
        )
        task = asyncio.ensure_future(self._revive(place))
        self._revivals.add(task)
        task.add_done_callback(self._revivals.discard)

    async def close(self) -> None:
        """Stop watching."""
        for task in list(self._revivals):
            task.cancel()
        await asyncio.gather(*self._revivals, return_exceptions=True)

    async def _revive(self, place: Place) -> None:
        while True:
            try:
                check_started(await place.searcher.start(), self._settings, "the world")
            except ActorGone as error:
                sys.stderr.write(f"search actor {place.number} is not started again ({error})\n")
                place.is_gone = True
                return
            except QAgentError as error:
                sys.stderr.write(f"search actor {place.number} is left out: {error}\n")
                place.is_gone = True
                return
            except ActorLost:
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            place.is_up = True
            return


def check_started(
    started: Started | QAgentError, settings: Mapping[str, Any], what: str
) -> Started:
    """Return what an actor says, if it has built the same as the driver.

    Raises:
        ConfigError: It has other data, files or versions.
        QAgentError: What it could not start with.
    """
    if isinstance(started, QAgentError):
        raise started
    if dict(started.settings) != dict(settings):
        differing = sorted(
            name
            for name in {*started.settings, *settings}
            if started.settings.get(name) != settings.get(name)
        )
        shown = "; ".join(
            f"{name}: {started.settings.get(name)!r} there, {settings.get(name)!r} here"
            for name in differing
        )
        raise ConfigError(
            f"{what} on {started.where} is another than here ({shown}); put the same files and "
            "the same version of the program on all machines"
        )
    return started
