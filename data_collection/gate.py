"""Keeps the engine's batch full: how many requests are let through, and how many trees it takes."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.base import Policy

_QUEUED = 1.25  # sequences per place in the batch, so that a place that gets free is taken at once
_FIRST_TARGET = 16
_LARGEST_TARGET = 1024
_GAIN = 1.05  # growing goes on while doubling brings at least this
_WINDOW_S = 2.0
_WINDOW_ANSWERS = 8


class Gate(Policy):
    """Lets a bounded number of sequences through to a policy; the others wait in order.

    Attributes:
        in_flight: Sequences the policy is generating.
        queued: Sequences that wait here.

    Args:
        policy: Who answers.
        limit: Sequences let through at a time; None lets all through. A request larger than the
            limit goes alone.
    """

    def __init__(self, policy: Policy, limit: int | None = None) -> None:
        super().__init__()
        self.usage = policy.usage
        self.policy = policy
        self.limit = limit
        self.in_flight = 0
        self.queued = 0
        self.answers = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Wait for a place, then ask the policy."""
        if self._line or not self._has_room(n):
            await self._wait(n)
        else:
            self.in_flight += n
        try:
            return await self.policy.propose(
                messages, n, sampling, constraint=constraint, seed=seed
            )
        finally:
            self.in_flight -= n
            self.answers += 1
            self._let_in()

    def settings(self) -> dict[str, Any]:
        """Return those of the policy."""
        return self.policy.settings()

    async def close(self) -> None:
        """Close the policy."""
        await self.policy.close()

    def set_limit(self, limit: int) -> None:
        """Let another number through from now on."""
        self.limit = limit
        self._let_in()

    def _has_room(self, n: int) -> bool:
        return self.limit is None or not self.in_flight or self.in_flight + n <= self.limit

    async def _wait(self, n: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((n, turn))
        self.queued += n
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in, and cancelled before it could go
                self.in_flight -= n
                self._let_in()
            raise

    def _let_in(self) -> None:
        while self._line and (self._line[0][1].done() or self._has_room(self._line[0][0])):
            n, turn = self._line.popleft()
            self.queued -= n
            if not turn.done():
                self.in_flight += n
                turn.set_result(None)


@dataclass(kw_only=True)
class Tuner:
    """Decides how many sequences should be in flight.

    A gate with a limit keeps it. A policy with a known batch (``max_num_seqs``) gets a quarter
    more than it holds. For any other the number is doubled while that brings more tokens per
    second, and then stays.

    Attributes:
        gate: Where requests pass.
        clock: Seconds; tests give their own.
        target: Sequences wanted in flight.
        is_settled: True once the target stays.
    """

    gate: Gate
    clock: Callable[[], float] = time.monotonic
    target: int = _FIRST_TARGET
    is_settled: bool = False
    _best_rate: float = 0.0
    _since: float = math.nan
    _tokens: int = 0
    _answers: int = 0

    def __post_init__(self) -> None:
        batch = self.gate.policy.max_num_seqs
        if self.gate.limit is not None:
            self.target, self.is_settled = self.gate.limit, True
        elif batch is not None:
            self.target, self.is_settled = math.ceil(batch * _QUEUED), True
        self.gate.set_limit(self.target)
        self._restart()

    @property
    def missing(self) -> int:
        """Sequences that should be in flight and are not; below 0 if too many wait."""
        return self.target - self.gate.in_flight - self.gate.queued

    def look(self) -> None:
        """Measure, and grow if it pays; call it several times a second."""
        if self.is_settled:
            return
        if self.missing > self.target // 4:
            self._restart()  # there was too little to do; such a window says nothing
            return
        seconds = self.clock() - self._since
        if seconds < _WINDOW_S or self.gate.answers - self._answers < _WINDOW_ANSWERS:
            return
        rate = (self.gate.usage.generated_tokens - self._tokens) / seconds
        if rate < self._best_rate * _GAIN:
            self.target //= 2
            self.is_settled = True
        else:
            self._best_rate = rate
            self.target = min(self.target * 2, _LARGEST_TARGET)
            self.is_settled = self.target == _LARGEST_TARGET
        self.gate.set_limit(self.target)
        self._restart()

    def _restart(self) -> None:
        self._since = self.clock()
        self._tokens = self.gate.usage.generated_tokens
        self._answers = self.gate.answers
