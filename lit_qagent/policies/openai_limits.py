"""Requests and tokens per minute: what a provider allows, kept to before it complains."""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from time import monotonic

from lit_qagent.core.errors import ConfigError

_WINDOW_S = 60.0


@dataclass(kw_only=True, slots=True)
class Admission:
    """One request that was let through: when, and what it is thought to cost."""

    time: float
    tokens: int


class RateLimit:
    """Lets requests through so that no 60 seconds hold more than a minute allows.

    Shared by all calls of a policy, also by those of several event loops.

    Args:
        requests_per_minute: None is no limit.
        tokens_per_minute: Prompt and generated tokens together; None is no limit.

    Raises:
        ConfigError: A limit below 1.
    """

    def __init__(
        self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None
    ) -> None:
        for name, value in (
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be >= 1, or null for no limit, got {value}")
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self._lock = threading.Lock()
        self._recent: deque[Admission] = deque()
        self._recent_tokens = 0
        self._held_until = float("-inf")

    async def admit(self, tokens: int) -> Admission:
        """Wait until a request may be sent, and count it.

        Args:
            tokens: What it may cost, at most.

        Raises:
            ConfigError: It may cost more than a whole minute allows.
        """
        if self.tokens_per_minute is not None and tokens > self.tokens_per_minute:
            raise ConfigError(
                f"one request may take about {tokens} tokens, prompt and n answers together, but "
                f"tokens_per_minute is {self.tokens_per_minute}; raise it, or lower "
                "sampling.max_tokens or the number of candidates"
            )
        while True:
            found = self._try(tokens)
            if isinstance(found, Admission):
                return found
            await asyncio.sleep(found)

    def settle(self, admission: Admission, tokens: int) -> None:
        """Correct what an answered request is thought to have cost."""
        with self._lock:
            self._forget_old(monotonic())
            if self._recent and admission.time >= self._recent[0].time:
                self._recent_tokens += tokens - admission.tokens
            admission.tokens = tokens

    def hold(self, seconds: float) -> None:
        """Let nothing through for some time, as the server has asked one of us to wait."""
        with self._lock:
            self._held_until = max(self._held_until, monotonic() + seconds)

    def _try(self, tokens: int) -> Admission | float:
        """Count a request that may go now, or return the seconds to wait before trying again."""
        with self._lock:
            now = monotonic()
            if now < self._held_until:
                return self._held_until - now
            self._forget_old(now)
            if self._is_full(tokens):
                return self._recent[0].time + _WINDOW_S - now
            admission = Admission(time=now, tokens=tokens)
            if self.requests_per_minute is not None or self.tokens_per_minute is not None:
                self._recent.append(admission)
                self._recent_tokens += tokens
            return admission

    def _is_full(self, tokens: int) -> bool:
        if not self._recent:
            return False
        requests, most = self.requests_per_minute, self.tokens_per_minute
        return (requests is not None and len(self._recent) >= requests) or (
            most is not None and self._recent_tokens + tokens > most
        )

    def _forget_old(self, now: float) -> None:
        while self._recent and self._recent[0].time + _WINDOW_S <= now:
            self._recent_tokens -= self._recent.popleft().tokens
