"""Actors on a Ray cluster; the only module that imports Ray."""

import asyncio
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
import ray

from data_collection.executors.base import ClusterFailure, Searches
from data_collection.executors.engine_actor import EngineActor, Started
from data_collection.executors.places import Places, check_started
from data_collection.executors.ray_handles import EngineHandle, SearcherHandle
from data_collection.executors.recipe import take_recipe
from data_collection.executors.remote_search import Handing
from data_collection.executors.remote_searches import RemoteSearches
from data_collection.executors.search_actor import SearchActor
from data_collection.setup import SearchSetup
from lit_qagent.core.errors import QAgentError

if TYPE_CHECKING:
    from data_collection.executors.ray import RayExecutor

_OBJECT_STORE_BYTES = 128 * 2**20  # nothing large passes through it
_CALLS_AT_ONCE = 4096
_CLOSE_LIMIT_S = 3.0
_TELL_EVERY_S = 10.0


@contextmanager
def running(
    options: "RayExecutor", setup: SearchSetup, sequences_in_flight: int | None
) -> Iterator[Searches]:
    """Start the actors, and end them on leaving; see `Executor.running`."""
    recipe = take_recipe(setup)
    with connected(options):
        actors: list[Any] = []
        try:
            engines, searchers = _start_actors(options, recipe, actors)
            settings = setup.environment.settings()
            engine_settings = setup.policy.settings()
            calls = [each.start_call for each in engines]
            calls += [each.start_call for each in searchers]
            started = _wait_for(options, calls)
            sizes = [
                check_started(each, engine_settings, "the policy").max_num_seqs
                for each in started[: options.engines]
            ]
            for each in started[options.engines :]:
                check_started(each, settings, "the world")
            yield RemoteSearches(
                setup.search,
                Handing(
                    places=Places(searchers, settings, options.start_timeout_s),
                    max_losses=options.max_losses,
                ),
                num_engines=options.engines,
                max_num_seqs=_total(sizes),
                sequences_in_flight=sequences_in_flight,
                close_engines=_Closing(engines),
            )
        finally:
            for actor in actors:
                with suppress(ray.exceptions.RayError, ValueError):  # the cluster may be lost
                    ray.kill(actor)


class _Closing:
    """Closes the policies of engine actors; one that hangs is not waited for."""

    def __init__(self, engines: Sequence[EngineHandle]) -> None:
        self._engines = engines

    async def __call__(self) -> None:
        closing = [asyncio.ensure_future(engine.close()) for engine in self._engines]
        done, _ = await asyncio.wait(closing, timeout=_CLOSE_LIMIT_S)
        await asyncio.gather(*done, return_exceptions=True)


@contextmanager
def connected(options: "RayExecutor") -> Iterator[None]:
    """Connect to a cluster, or start one here; one that is connected already stays so.

    Raises:
        ClusterFailure: There is none, or it does not start.
    """
    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)  # Ray puts its own handler in its place
    try:
        _connect(options)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(options: "RayExecutor") -> None:
    arguments: dict[str, Any] = {"address": options.address}
    if options.address == "local":
        arguments |= {
            "num_cpus": max(1, math.ceil(options.cpus)),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    for tries_left in (2, 1, 0):
        try:
            ray.init(log_to_driver=False, configure_logging=False, **arguments)
            return
        except Exception as error:  # Ray raises plain ones
            ray.shutdown()
            if tries_left and options.address == "local":
                continue  # a busy machine may be too slow for Ray's own limits once
            raise ClusterFailure(
                f"executor.address {options.address!r}: Ray could not be reached or started "
                f"({error}); start it with `ray start --head`, or use address local"
            ) from error


def _start_actors(
    options: "RayExecutor", recipe: Mapping[str, Any], actors: list[Any]
) -> tuple[list[EngineHandle], list[SearcherHandle]]:
    """Ask for all actors, the engines first; they are added to ``actors`` as they come."""
    common = {
        "max_restarts": options.max_restarts,
        "max_task_retries": 0,  # who asks decides what is asked again, and where
        "max_concurrency": _CALLS_AT_ONCE,
        "scheduling_strategy": "SPREAD",
    }
    folder = os.getcwd()  # noqa: PTH109 (sent as text to machines that may not have it)
    engine = ray.remote(EngineActor).options(
        num_cpus=options.cpus_per_engine, num_gpus=options.gpus_per_engine, **common
    )
    sys.stderr.write(
        f"starting {options.engines} engine actors and {options.searchers} search actors\n"
    )
    for _ in range(options.engines):
        actors.append(engine.remote({"policy": recipe["policy"]}, folder))
    engines = [EngineHandle(actor) for actor in actors]
    searcher = ray.remote(SearchActor).options(num_cpus=options.cpus_per_searcher, **common)
    world = {name: value for name, value in recipe.items() if name != "policy"}
    for _ in range(options.searchers):
        actors.append(searcher.remote(world, folder))
    return engines, [SearcherHandle(actor, engines) for actor in actors[options.engines :]]


def _wait_for(
    options: "RayExecutor", calls: Sequence[Callable[[], Any]]
) -> list[Started | QAgentError]:
    """Wait until all actors have built what they need; one that dies meanwhile is asked again.

    Args:
        options: What was asked for.
        calls: Begin the start of one actor each.

    Raises:
        ClusterFailure: The cluster has no room, or an actor cannot be started.
    """
    begin = time.monotonic()
    look_every_s = min(_TELL_EVERY_S, options.start_timeout_s)
    pending = {call(): number for number, call in enumerate(calls)}
    started: dict[int, Started | QAgentError] = {}
    while pending:
        done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=look_every_s)
        for ref in done:
            number = pending.pop(ref)
            try:
                started[number] = ray.get(ref)
            except ray.exceptions.ActorUnavailableError:
                pending[calls[number]()] = number
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                raise ClusterFailure(
                    f"an actor could not be started ({type(cause).__name__}: {cause}); are the "
                    "same program and the modules named in the config on all machines?"
                ) from error
        if pending:
            _tell(options, len(pending), len(calls), time.monotonic() - begin)
    return [started[number] for number in range(len(calls))]


def _tell(options: "RayExecutor", num_pending: int, num_actors: int, seconds: float) -> None:
    """Say what the cluster does not give.

    Raises:
        ClusterFailure: It was waited for long enough.
    """
    have = ray.cluster_resources()
    text = (
        f"{num_pending} of {num_actors} actors are not there yet: asked for are "
        f"{options.cpus:g} CPU cores and {options.gpus:g} GPUs, the cluster has "
        f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}"
    )
    if seconds >= options.start_timeout_s:
        raise ClusterFailure(f"{text}; ask for less, or add machines")
    sys.stderr.write(f"{text}\n")


def _total(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
