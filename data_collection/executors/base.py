"""What an executor gives to a run: searches of tasks, wherever the work is done."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Protocol

from data_collection.crew import Crew
from data_collection.growing_tree import GrowingTree
from data_collection.setup import SearchSetup
from lit_qagent.core.errors import QAgentError
from lit_qagent.core.records import Task


class ClusterFailure(QAgentError):
    """A cluster that does not give what was asked for, or has lost all of it."""


class Searches(Protocol):
    """The searches of one run."""

    @property
    def handed_out_again(self) -> int:
        """How often a tree was given to another worker because its own had died."""
        ...

    async def open(self, task: Task) -> GrowingTree:
        """Return a fresh search of a task.

        Raises:
            EnvironmentFailure: The world cannot start the task.
        """
        ...

    def crew(self, concurrency: int | None) -> Crew:
        """Return who decides how many trees are in flight.

        Args:
            concurrency: How many; None for as many as keep the policy's batch full.
        """
        ...

    async def close(self) -> None:
        """Release what the searches hold, the policy included."""
        ...


class Executor(ABC):
    """Where searches run; trees do not depend on it."""

    @abstractmethod
    def running(
        self, setup: SearchSetup, sequences_in_flight: int | None = None
    ) -> AbstractContextManager[Searches]:
        """Start what is needed and end it on leaving.

        Args:
            setup: What all trees share.
            sequences_in_flight: Samples asked for at once, over all trees; None leaves it to the
                concurrency.

        Raises:
            ClusterFailure: It could not be started.
            ConfigError: The setup cannot run there.
            MissingPackage: What it needs is not installed.
        """
