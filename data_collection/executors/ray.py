"""The Ray executor: its options, without Ray, which is imported when a run starts."""

import os
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

from data_collection.executors.base import Executor, Searches
from data_collection.setup import SearchSetup
from lit_qagent.core.errors import ConfigError, MissingPackage


class RayExecutor(Executor):
    """Searches and policies as actors of a Ray cluster; this process alone writes the store.

    Engine actors hold the policy, one each. Search actors search the tasks that are handed to
    them. An actor that dies is started again: its requests are asked again, its trees are handed
    out again and go on from their last iteration.

    Args:
        engines: Engine actors, each with a policy of its own.
        searchers: Search actors.
        gpus_per_engine: GPUs of each engine actor; it sees no other.
        cpus_per_engine: CPU cores set aside for each engine actor; an engine on the CPU takes as
            many threads, so give it what there is.
        cpus_per_searcher: CPU cores set aside for each search actor.
        address: ``local`` starts a cluster on this machine and ends it afterwards, ``auto`` takes
            the one that runs here or that RAY_ADDRESS names, ``host:port`` a certain one.
        max_restarts: How often each actor is started again; -1 is without end.
        max_losses: Search actors that a task may lose before it has done one more iteration; with
            one more it is recorded as failed.
        start_timeout_s: Seconds to wait for the cluster to give what was asked for, and for a
            search actor to come back when none is left.
    """

    def __init__(  # noqa: PLR0913 (every argument is an option in YAML)
        self,
        engines: int = 1,
        searchers: int = 2,
        gpus_per_engine: float = 0.0,
        cpus_per_engine: float = 1.0,
        cpus_per_searcher: float = 1.0,
        address: str = "local",
        max_restarts: int = 10,
        max_losses: int = 3,
        start_timeout_s: float = 600.0,
    ) -> None:
        for name, value, least in (
            ("engines", engines, 1),
            ("searchers", searchers, 1),
            ("gpus_per_engine", gpus_per_engine, 0),
            ("cpus_per_engine", cpus_per_engine, 0),
            ("cpus_per_searcher", cpus_per_searcher, 0),
            ("max_restarts", max_restarts, -1),
            ("max_losses", max_losses, 0),
            ("start_timeout_s", start_timeout_s, 1),
        ):
            if value < least:
                raise ConfigError(f"RayExecutor.{name} must be >= {least}, got {value}")
        self.engines = engines
        self.searchers = searchers
        self.gpus_per_engine = gpus_per_engine
        self.cpus_per_engine = cpus_per_engine
        self.cpus_per_searcher = cpus_per_searcher
        self.address = address
        self.max_restarts = max_restarts
        self.max_losses = max_losses
        self.start_timeout_s = start_timeout_s

    @property
    def cpus(self) -> float:
        """CPU cores set aside for all actors."""
        return self.engines * self.cpus_per_engine + self.searchers * self.cpus_per_searcher

    @property
    def gpus(self) -> float:
        """GPUs of all engine actors."""
        return self.engines * self.gpus_per_engine

    def running(
        self, setup: SearchSetup, sequences_in_flight: int | None = None
    ) -> AbstractContextManager[Searches]:
        """See `Executor.running`."""
        if find_spec("ray") is None:
            raise MissingPackage(
                "executor ray needs Ray, which is not installed; pip install 'lit-qagent[ray]', "
                "or use executor local"
            )
        if self.address != "local":
            _offer_token()
        from data_collection.executors.ray_cluster import running

        return running(self, setup, sequences_in_flight)


def _offer_token() -> None:
    """Show the cluster the token of this machine, if it has one and nothing else was decided.

    `ray start` asks for it wherever there is one, a program that connects does not offer it. Ray
    reads this when it is imported.
    """
    there = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if there or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
