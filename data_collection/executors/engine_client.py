"""How a search actor asks the engine actors: each tree has a home, the others stand in."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from data_collection.executors.lost import ActorLost
from data_collection.gate import Gate
from lit_qagent.core.errors import ContextOverflow, PolicyFailure, QAgentError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, total_cost
from lit_qagent.policies.base import Policy

_REST_S = 5.0


class Engine(Protocol):
    """An engine actor from afar."""

    def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        constraint: Constraint | None,
        seed: int | None,
    ) -> Awaitable[list[Proposal] | QAgentError]:
        """Do what `EngineActor.propose` does.

        Raises:
            ActorLost: The actor died.
        """
        ...


class EngineClient(Policy):
    """One engine actor; one that failed is given a rest if there are others.

    Attributes:
        losses: Requests that got no answer because the actor died.

    Args:
        engine: The actor.
        clock: Seconds; tests give their own.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.losses = 0
        self._engine = engine
        self._clock = clock
        self._rests_until = 0.0

    @property
    def rests(self) -> bool:
        """True for a while after a failure."""
        return self._clock() < self._rests_until

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Return the actor's answer, or raise its error.

        Raises:
            ActorLost: The actor died.
            QAgentError: Whatever the policy failed with.
        """
        try:
            answer = await self._engine.propose(messages, n, sampling, constraint, seed)
        except ActorLost:
            self.losses += 1
            self._rest()
            raise
        if isinstance(answer, QAgentError):
            if isinstance(answer, PolicyFailure) and not isinstance(answer, ContextOverflow):
                self._rest()
            raise answer
        self._rests_until = 0.0
        self.usage.add(total_cost(answer))
        return answer

    def settings(self) -> dict[str, Any]:
        """Return nothing: the driver knows the policy's."""
        return {}

    def _rest(self) -> None:
        self._rests_until = self._clock() + _REST_S


class EnginePool:
    """All engine actors, as one search actor sees them.

    Attributes:
        gates: One before each engine; they count what is in flight.

    Args:
        clients: The engines.
    """

    def __init__(self, clients: Sequence[EngineClient]) -> None:
        self.clients = list(clients)
        self.gates = [Gate(client) for client in clients]

    def set_limit(self, limit: int) -> None:
        """Let so many sequences through to each engine."""
        for gate in self.gates:
            gate.set_limit(limit)

    def order(self, home: int) -> list[int]:
        """Return the engines in the order in which a tree asks them: its home, then the idlest.

        Those that rest come last.
        """

        def key(number: int) -> tuple[bool, bool, int]:
            gate = self.gates[number]
            return self.clients[number].rests, number != home, gate.in_flight + gate.queued

        return sorted(range(len(self.gates)), key=key)


class TreePolicy(Policy):
    """The policy of one tree: its home engine, which remembers the tree's history, or another.

    Args:
        pool: The engines.
        home: Number of the tree's own.
    """

    def __init__(self, pool: EnginePool, home: int) -> None:
        super().__init__()
        self._pool = pool
        self._home = home

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Return the answer of the first engine that is alive.

        Raises:
            PolicyFailure: None is, or the policy gave no answer.
        """
        lost: ActorLost | None = None
        for number in self._pool.order(self._home):
            try:
                return await self._pool.gates[number].propose(
                    messages, n, sampling, constraint=constraint, seed=seed
                )
            except ActorLost as error:
                lost = error
        raise PolicyFailure(f"no engine actor is alive ({lost})") from lost

    def settings(self) -> dict[str, Any]:
        """Return nothing: the driver knows the policy's."""
        return {}
