"""A call of an OpenAI-compatible API that survives what servers do: limits, faults, silence."""

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from lit_qagent.core.backoff import retry_after_s, wait_s
from lit_qagent.core.errors import ConfigError, ContextOverflow, PolicyFailure
from lit_qagent.policies.openai_answers import PATHS, Answer, Api, read_answer
from lit_qagent.policies.openai_limits import RateLimit
from lit_qagent.policies.openai_refusals import Refusal, Refused, read_refusal

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_RETRY_AFTER_S = 120.0
_SHOWN_CHARACTERS = 300


class _Fault(Exception):
    """A failure that another attempt may not meet; `wait_s` is the server's wish, if it has one."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointSpec:
    """Where to ask, and how patiently.

    Attributes:
        base_url: Up to and with the version, such as ``https://api.openai.com/v1``.
        api_key_env: Name of the environment variable that holds the key; without it no key is
            sent.
        api: Which of the two APIs.
        timeout_s: Longest duration of one attempt, in seconds.
        max_retries: Further attempts after the first.
        max_concurrency: Requests in flight at the same time.
    """

    base_url: str
    api_key_env: str
    api: Api
    timeout_s: float
    max_retries: int
    max_concurrency: int

    def __post_init__(self) -> None:
        url = httpx.URL(self.base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(
                f"base_url must be an http(s) address such as http://localhost:8000/v1, "
                f"got {self.base_url!r}"
            )
        if not _VARIABLE.fullmatch(self.api_key_env):  # perhaps the key itself: not shown
            raise ConfigError(
                "api_key_env must be the name of an environment variable, such as "
                "OPENAI_API_KEY, and not the key; put the key into that variable"
            )
        if url.userinfo or url.query:
            raise ConfigError(
                "base_url must not carry a name, a password or a query, as it is written into "
                f"reports; put the key into the environment variable {self.api_key_env}"
            )
        if self.api not in PATHS:
            raise ConfigError(f"api must be one of {', '.join(PATHS)}, got {self.api!r}")
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s must be positive, got {self.timeout_s}")
        if self.max_retries < 0:
            raise ConfigError(f"max_retries must be >= 0, got {self.max_retries}")
        if self.max_concurrency < 1:
            raise ConfigError(f"max_concurrency must be >= 1, got {self.max_concurrency}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Connection:
    """What belongs to one event loop and cannot be used from another.

    Attributes:
        loop: The event loop.
        client: Keeps connections open.
        slots: One for each request in flight.
        turn: Held by the request that waits for the rate limit, so that none is overtaken.
    """

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    slots: asyncio.Semaphore
    turn: asyncio.Lock


class Endpoint:
    """Posts requests, with retries.

    Tried again, with growing and jittered waits: status 408, 409, 429 and 5xx, FastChat's 400 for
    a worker that is gone, time-outs, lost connections, answers that are not JSON or have no
    choice. Where the server says ``Retry-After``, every request of this endpoint waits so long.
    Any other 4xx fails at once.

    Args:
        spec: Where and how.
        limit: What a minute allows.
    """

    def __init__(self, spec: EndpointSpec, limit: RateLimit) -> None:
        self.spec = spec
        self.limit = limit
        self.num_retries = 0
        self._connection: _Connection | None = None

    async def complete(self, body: Mapping[str, Any], tokens: int) -> Answer:
        """Return an answer with at least one choice.

        Args:
            body: The request.
            tokens: What it may cost, prompt and answers together.

        Raises:
            ConfigError: It may cost more tokens than a minute allows.
            ContextOverflow: The server says that the prompt is too long.
            Refused: A request that it does not take.
            PolicyFailure: No answer after the last attempt.
        """
        connection = self._connect()
        attempts = self.spec.max_retries + 1
        for attempt in range(attempts):
            try:
                return await self._attempt(connection, body, tokens)
            except _Fault as fault:
                if attempt + 1 == attempts:
                    raise PolicyFailure(
                        f"{self.spec.base_url} gave no answer in {attempts} attempts, the last: "
                        f"{fault}; check the server, or raise timeout_s or max_retries"
                    ) from fault
                self.num_retries += 1
                if fault.wait_s is None:
                    await asyncio.sleep(wait_s(attempt))
                else:
                    self.limit.hold(min(fault.wait_s, _LONGEST_RETRY_AFTER_S))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def close(self) -> None:
        """Close the connections of the current event loop."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.loop is asyncio.get_running_loop():
            await connection.client.aclose()

    def _connect(self) -> _Connection:
        """Return the connections of the current event loop."""
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.loop is not loop:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            self._connection = _Connection(
                loop=loop,
                client=httpx.AsyncClient(timeout=self.spec.timeout_s, limits=limits),
                slots=asyncio.Semaphore(self.spec.max_concurrency),
                turn=asyncio.Lock(),
            )
        return self._connection

    async def _attempt(
        self, connection: _Connection, body: Mapping[str, Any], tokens: int
    ) -> Answer:
        """Post once, when the limits allow it, and judge what came back."""
        async with connection.slots:
            async with connection.turn:
                admission = await self.limit.admit(tokens)
            response = await self._post(connection.client, body)
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response)
        try:
            answer = read_answer(response.text, self.spec.api)
        except ValueError as error:
            raise _Fault(f"{error}: {response.text[:_SHOWN_CHARACTERS]!r}") from error
        if answer.generated_tokens is not None:
            self.limit.settle(admission, answer.prompt_tokens + answer.generated_tokens)
        return answer

    async def _post(self, client: httpx.AsyncClient, body: Mapping[str, Any]) -> httpx.Response:
        """Post once; a server that sends byte after byte is bounded by the time-out too."""
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{self.spec.base_url.rstrip('/')}/{PATHS[self.spec.api]}"
        try:
            async with asyncio.timeout(self.spec.timeout_s):
                return await client.post(url, json=dict(body), headers=headers)
        except TimeoutError as error:
            raise _Fault(f"no whole answer within {self.spec.timeout_s:g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Fault(self._hide(f"{type(error).__name__}: {error}")) from None

    def _key(self) -> str:
        """Return the key, or nothing.

        Raises:
            PolicyFailure: It has characters that no header can carry.
        """
        key = os.environ.get(self.spec.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise PolicyFailure(
                f"the key in the environment variable {self.spec.api_key_env} has characters that "
                "no key has; set it again"
            )
        return key

    def _hide(self, text: str) -> str:
        """Return a text without the key."""
        key = self._key()
        return text.replace(key, "***") if key else text

    def _refusal(self, response: httpx.Response) -> Exception:
        """Return the error that a status other than 200 stands for."""
        refusal = read_refusal(response.status_code, self._hide(response.text))
        url = self.spec.base_url
        shown = f"HTTP {refusal.status}: {refusal.text[:_SHOWN_CHARACTERS]}"
        if refusal.is_passing:
            return _Fault(shown, retry_after_s(response.headers.get("Retry-After")))
        if refusal.is_overflow:
            return ContextOverflow(f"{url} finds the prompt too long ({shown})")
        return Refused(f"{url} refused {self._remedy(refusal, shown)}", refusal)

    def _remedy(self, refusal: Refusal, shown: str) -> str:
        if refusal.status in (401, 403):
            return (
                f"the key ({shown}); set the environment variable {self.spec.api_key_env} to a "
                "valid one"
            )
        if refusal.status == httpx.codes.TOO_MANY_REQUESTS:
            return f"the request ({shown}); the account's quota is spent, raise it there"
        return f"the request ({shown}); check base_url, api, model and sampling"
