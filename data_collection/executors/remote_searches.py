"""The searches of a run on a cluster: hands tasks out and keeps the engines' batches full."""

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from data_collection.crew import Crew, FixedCrew, TunedCrew
from data_collection.executors.lost import ActorLost
from data_collection.executors.places import Place
from data_collection.executors.remote_search import Handing, RemoteSearch
from data_collection.executors.search_actor import Load
from data_collection.gate import Gate
from data_collection.spec import SearchSpec
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, Task
from lit_qagent.policies.base import Policy

_LOOK_EVERY_S = 0.25
_LAST_LOOK_S = 1.0


class AllEngines(Policy):
    """All engine actors together, as the number of trees is tuned for; nobody asks it.

    Args:
        max_num_seqs: Sequences that all of them generate at the same time; None if not known.
    """

    def __init__(self, max_num_seqs: int | None) -> None:
        super().__init__()
        self.max_num_seqs = max_num_seqs

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Refuse."""
        raise RuntimeError("requests go to the engine actors")

    def settings(self) -> dict[str, Any]:
        """Return nothing: nobody asks."""
        return {}


class ClusterGate(Gate):
    """The gates of all search actors as one: counts that are looked at, a limit that is shared."""

    def take_over(self, loads: Sequence[Load]) -> None:
        """Take over what the search actors have counted."""
        self.in_flight = sum(load.in_flight for load in loads)
        self.queued = sum(load.queued for load in loads)
        self.answers = sum(load.answers for load in loads)
        self.usage.generated_tokens = sum(load.generated_tokens for load in loads)


class RemoteSearches:
    """Searches on search actors.

    Args:
        spec: How trees are searched.
        handing: How they are handed out.
        num_engines: Engine actors.
        max_num_seqs: Sequences that all of them generate at the same time; None if not known.
        sequences_in_flight: Samples asked for at once, by all search actors; None is no limit.
        close_engines: Closes the policies.
    """

    def __init__(
        self,
        spec: SearchSpec,
        handing: Handing,
        *,
        num_engines: int,
        max_num_seqs: int | None,
        sequences_in_flight: int | None = None,
        close_engines: Callable[[], Awaitable[object]],
    ) -> None:
        self._spec = spec
        self._handing = handing
        self._close_engines = close_engines
        self._gate = ClusterGate(AllEngines(max_num_seqs), sequences_in_flight)
        self._loads: dict[int, Load] = {}
        self._losses_told = 0
        self._num_engines = num_engines
        self._next_home = 0
        self._watch: asyncio.Task[None] | None = None

    @property
    def handed_out_again(self) -> int:
        """How often a tree was given to another search actor because its own had died."""
        return self._handing.num_again

    async def open(self, task: Task) -> RemoteSearch:
        """See `Searches.open`."""
        self._watch = self._watch or asyncio.ensure_future(self._keep_looking())
        search = RemoteSearch(self._spec, task, self._next_home, self._handing)
        self._next_home = (self._next_home + 1) % self._num_engines
        await search.start()
        return search

    def crew(self, concurrency: int | None) -> Crew:
        """See `Searches.crew`."""
        if concurrency:
            return FixedCrew(concurrency)
        crew = TunedCrew(self._gate)
        crew.look_every_s = 2 * _LOOK_EVERY_S  # the counts are not newer
        return crew

    async def close(self) -> None:
        """Stop looking, and close the policies."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            with suppress(TimeoutError):  # what was lost since the last look
                await asyncio.wait_for(self._look(), _LAST_LOOK_S)
        await self._handing.places.close()
        await self._close_engines()

    async def _keep_looking(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        """Add up what the search actors have in flight."""
        places = self._handing.places.all
        await asyncio.gather(*[self._look_at(place) for place in places])
        self._gate.take_over(list(self._loads.values()))
        self._tell_losses()

    async def _look_at(self, place: Place) -> None:
        try:
            load = await place.searcher.load(self._share()) if place.is_up else Load()
        except ActorLost:
            load = Load()
        self._loads[place.number] = load

    def _share(self) -> int | None:
        """Return how many sequences each search actor may have with each engine."""
        if self._gate.limit is None:
            return None
        return math.ceil(self._gate.limit / (len(self._handing.places.all) * self._num_engines))

    def _tell_losses(self) -> None:
        losses = sum(load.losses for load in self._loads.values())
        if losses > self._losses_told:
            sys.stderr.write(
                f"an engine actor was lost; {losses - self._losses_told} requests are asked again\n"
            )
        self._losses_told = losses
