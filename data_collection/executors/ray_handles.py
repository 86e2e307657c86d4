"""Ray's actor handles in the form that the rest knows: a death is `ActorLost`."""

import asyncio
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError

from data_collection.executors.engine_actor import Started
from data_collection.executors.lost import ActorGone, ActorLost
from data_collection.executors.search_actor import Load
from data_collection.iterations import Iteration, TreeHeader
from lit_qagent.core.errors import QAgentError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, Task


class EngineHandle:
    """An engine actor; see `EngineActor`.

    Args:
        actor: Ray's handle.
    """

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 (Ray's handles have no type)
        self.actor = actor

    def start_call(self) -> Any:  # noqa: ANN401 (Ray's references have no type)
        """Begin `EngineActor.start` without waiting for it."""
        return self.actor.start.remote()

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        constraint: Constraint | None,
        seed: int | None,
    ) -> list[Proposal] | QAgentError:
        """See `EngineActor.propose`."""
        call = self.actor.propose.remote(messages, n, sampling, constraint, seed)
        answer: list[Proposal] | QAgentError = await _answer(call)
        return answer

    async def close(self) -> None:
        """See `EngineActor.close`."""
        await _answer(self.actor.close.remote())


class SearcherHandle:
    """A search actor; see `SearchActor`.

    Args:
        actor: Ray's handle.
        engines: The engines it asks.
    """

    def __init__(self, actor: Any, engines: Sequence[EngineHandle]) -> None:  # noqa: ANN401
        self.actor = actor
        self.engines = list(engines)

    def start_call(self) -> Any:  # noqa: ANN401 (Ray's references have no type)
        """Begin `start` without waiting for it."""
        return self.actor.start.remote(self.engines)

    async def start(self) -> Started | QAgentError:
        """See `SearchActor.start`."""
        answer: Started | QAgentError = await _answer(self.start_call())
        return answer

    async def open(
        self, task: Task, home: int, iterations: Sequence[Iteration]
    ) -> TreeHeader | QAgentError | None:
        """See `SearchActor.open`."""
        call = self.actor.open.remote(task, home, list(iterations))
        answer: TreeHeader | QAgentError | None = await _answer(call)
        return answer

    async def iterate(self, task_id: str, num_done: int) -> Iteration | QAgentError | None:
        """See `SearchActor.iterate`."""
        call = self.actor.iterate.remote(task_id, num_done)
        answer: Iteration | QAgentError | None = await _answer(call)
        return answer

    async def close_search(self, task_id: str) -> None:
        """See `SearchActor.close_search`."""
        await _answer(self.actor.close_search.remote(task_id))

    async def load(self, limit: int | None) -> Load:
        """See `SearchActor.load`."""
        answer: Load = await _answer(self.actor.load.remote(limit))
        return answer


async def _answer(call: Any) -> Any:  # noqa: ANN401 (whatever the actor returns)
    """Wait for a call's result; who stops waiting cancels the call.

    Raises:
        ActorLost: The actor died.
    """
    try:
        return await call
    except ActorDiedError as error:
        raise ActorGone(_first_line(error)) from error
    except (RayActorError, ObjectLostError) as error:
        raise ActorLost(_first_line(error)) from error
    except asyncio.CancelledError:
        ray.cancel(call)
        raise


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
