"""Everything in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from data_collection.crew import Crew, FixedCrew, TunedCrew
from data_collection.executors.base import Executor, Searches
from data_collection.gate import Gate
from data_collection.search import TreeSearch
from data_collection.setup import SearchSetup
from lit_qagent.core.records import Task


class LocalExecutor(Executor):
    """Searches in this process, in one event loop."""

    @contextmanager
    def running(
        self, setup: SearchSetup, sequences_in_flight: int | None = None
    ) -> Iterator[Searches]:
        """See `Executor.running`."""
        yield LocalSearches(setup, sequences_in_flight)


class LocalSearches:
    """Searches in this process.

    Args:
        setup: What all trees share.
        sequences_in_flight: Samples asked for at once; None is no limit.
    """

    def __init__(self, setup: SearchSetup, sequences_in_flight: int | None = None) -> None:
        self.handed_out_again = 0  # nobody else is there
        self._gate = Gate(setup.policy, sequences_in_flight)
        self._setup = replace(setup, policy=self._gate)

    async def open(self, task: Task) -> TreeSearch:
        """See `Searches.open`."""
        return TreeSearch(self._setup, task)

    def crew(self, concurrency: int | None) -> Crew:
        """See `Searches.crew`."""
        return FixedCrew(concurrency) if concurrency else TunedCrew(self._gate)

    async def close(self) -> None:
        """Close the policy and the critic."""
        await self._gate.close()
        if self._setup.critic is not None:
            await self._setup.critic.close()
