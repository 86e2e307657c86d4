"""The actor that searches: it holds the trees handed to it and does their iterations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_collection.executors.engine_actor import Started, whereabouts
from data_collection.executors.engine_client import Engine, EngineClient, EnginePool, TreePolicy
from data_collection.executors.recipe import build_setup, enter_folder
from data_collection.iterations import Iteration, TreeHeader
from data_collection.search import TreeSearch
from data_collection.setup import SearchSetup
from lit_qagent.core.errors import QAgentError
from lit_qagent.core.records import Task


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a search actor has to do with the engines.

    Attributes:
        in_flight: Sequences asked for.
        queued: Sequences that wait until they may be.
        answers: Requests answered so far.
        generated_tokens: Tokens of these answers.
        losses: Requests whose engine actor died.
    """

    in_flight: int = 0
    queued: int = 0
    answers: int = 0
    generated_tokens: int = 0
    losses: int = 0


class SearchActor:
    """Searches the tasks handed to it, many at the same time; it writes nothing.

    Errors of this project are returned, not raised, so that the caller gets them unchanged.

    Args:
        recipe: What to build the world from.
        folder: Where relative paths start.
    """

    def __init__(self, recipe: Mapping[str, Any], folder: str) -> None:
        enter_folder(folder)
        self._recipe = recipe
        self._pool = EnginePool([])
        self._setup: SearchSetup | None = None
        self._searches: dict[str, TreeSearch] = {}

    async def start(self, engines: Sequence[Engine]) -> Started | QAgentError:
        """Build the world; nothing can be searched before.

        Args:
            engines: Who answers.
        """
        self._pool = EnginePool([EngineClient(engine) for engine in engines])
        try:
            self._setup = build_setup(self._recipe, TreePolicy(self._pool, 0))
            return Started(settings=self._setup.environment.settings(), where=whereabouts())
        except QAgentError as error:
            return error

    async def open(
        self, task: Task, home: int, iterations: Sequence[Iteration]
    ) -> TreeHeader | QAgentError | None:
        """Begin the search of a task, or take it over after some iterations.

        Args:
            task: The task.
            home: Number of the engine that this tree asks.
            iterations: What was done already, here or elsewhere.

        Returns:
            What the tree starts from; an error; None if this actor was not started yet.
        """
        if self._setup is None:
            return None
        await self.close_search(task.task_id)
        try:
            setup = replace(self._setup, policy=TreePolicy(self._pool, home))
            search = TreeSearch(setup, task)
            search.restore(iterations)
        except QAgentError as error:
            return error
        self._searches[task.task_id] = search
        return search.header

    async def iterate(self, task_id: str, num_done: int) -> Iteration | QAgentError | None:
        """Do the next iteration of an open search.

        Args:
            task_id: The task.
            num_done: Iterations that the caller has.

        Returns:
            The iteration; an error; None if this actor does not stand where the caller does.
        """
        search = self._searches.get(task_id)
        if search is None or search.num_iterations != num_done:
            return None
        try:
            return await search.iterate()
        except QAgentError as error:
            return error

    async def close_search(self, task_id: str) -> None:
        """Forget a search."""
        search = self._searches.pop(task_id, None)
        if search is not None:
            await search.close()

    async def load(self, limit: int | None) -> Load:
        """Return what is in flight, and let so many sequences through to each engine.

        Args:
            limit: How many; None leaves it as it is.
        """
        if limit is not None:
            self._pool.set_limit(limit)
        gates, clients = self._pool.gates, self._pool.clients
        return Load(
            in_flight=sum(gate.in_flight for gate in gates),
            queued=sum(gate.queued for gate in gates),
            answers=sum(gate.answers for gate in gates),
            generated_tokens=sum(client.usage.generated_tokens for client in clients),
            losses=sum(client.losses for client in clients),
        )
