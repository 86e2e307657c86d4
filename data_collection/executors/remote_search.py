"""A search whose work a search actor does; the driver keeps what is needed to do it elsewhere."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from data_collection.executors.lost import ActorForgot, ActorLost, SearcherLost
from data_collection.executors.places import Place, Places
from data_collection.growing_tree import GrowingTree
from data_collection.iterations import Iteration, TreeHeader
from data_collection.spec import SearchSpec
from lit_qagent.core.errors import QAgentError
from lit_qagent.core.records import Task

_LOSSES_UNTIL_ALONE = 2

T = TypeVar("T")


@dataclass(kw_only=True)
class Handing:
    """How trees are handed out.

    Attributes:
        places: The search actors.
        max_losses: How many actors a tree may lose before it has done an iteration; with one more
            it has failed.
        num_again: How often a tree was handed out again.
        alone: Held by the one tree that is tried while others under suspicion wait.
    """

    places: Places
    max_losses: int
    num_again: int = 0
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)


class RemoteSearch(GrowingTree):
    """The search of one task's tree on one search actor after the other.

    Each iteration comes back before it counts, so a death costs the iteration in flight, and the
    tree is what it would have been. A task whose actor dies twice before an iteration is done may
    be what kills it: such tasks are tried one at a time, so that they take no other down with
    them.

    Args:
        spec: How it is searched.
        task: The task.
        home: Number of the engine that this tree asks.
        handing: How trees are handed out.
    """

    def __init__(self, spec: SearchSpec, task: Task, home: int, handing: Handing) -> None:
        super().__init__(spec)
        self._task = task
        self._home = home
        self._handing = handing
        self._iterations: list[Iteration] = []
        self._place: Place | None = None
        self._losses = 0

    async def start(self) -> None:
        """Open the search for the first time.

        Raises:
            EnvironmentFailure: The world cannot start the task, or the actors died of it.
        """
        self.header = await self._persist(self._open)

    def restore(self, iterations: Sequence[Iteration]) -> None:
        """Take over what is stored; an actor is given it before the next iteration."""
        for iteration in iterations:
            self._keep(iteration)
        self._forget_place()

    async def iterate(self) -> Iteration:
        """See `GrowingTree.iterate`."""
        iteration = await self._persist(self._iterate)
        self._losses = 0
        self._keep(iteration)
        return iteration

    async def close(self) -> None:
        """Let the actor forget the search."""
        place = self._place
        self._forget_place()
        if place is not None:
            with suppress(ActorLost):
                await place.searcher.close_search(self._task.task_id)

    async def _persist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do work, and again elsewhere if the actor dies of it.

        Raises:
            SearcherLost: Too many actors died.
        """
        while True:
            try:
                async with self._turn():
                    return await work()
            except ActorLost as error:
                self._losses += 1
                if self._place is not None and not isinstance(error, ActorForgot):
                    self._handing.places.note_loss(self._place, error)
                self._forget_place()
                if self._losses > self._handing.max_losses:
                    raise SearcherLost(
                        f"{self._losses} search actors died while they did iteration "
                        f"{self.num_iterations} of task {self._task.task_id!r}, the last: {error}"
                    ) from error
                self._handing.num_again += 1

    def _turn(self) -> AbstractAsyncContextManager[object]:
        return self._handing.alone if self._losses >= _LOSSES_UNTIL_ALONE else nullcontext()

    async def _open(self) -> TreeHeader:
        self._place = self._place or await self._handing.places.take()
        header = await self._place.searcher.open(self._task, self._home, self._iterations)
        if header is None:
            raise ActorLost("it was started again")
        if isinstance(header, QAgentError):
            self._forget_place()
            raise header
        return header

    async def _iterate(self) -> Iteration:
        if self._place is None:
            await self._open()
        assert self._place is not None
        answer = await self._place.searcher.iterate(self._task.task_id, self.num_iterations)
        if answer is None:
            raise ActorForgot("it was started again and has forgotten its trees")
        if isinstance(answer, QAgentError):
            raise answer
        return answer

    def _keep(self, iteration: Iteration) -> None:
        self._iterations.append(iteration)
        self._grow(iteration)

    def _forget_place(self) -> None:
        if self._place is not None:
            self._handing.places.give_back(self._place)
            self._place = None
