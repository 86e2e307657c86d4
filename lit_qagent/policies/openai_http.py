"""A call of a chat-completions endpoint that survives what servers do: limits, faults, silence."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from lit_qagent.core.backoff import retry_after_s, wait_s
from lit_qagent.core.errors import ConfigError, ContextOverflow, PolicyFailure

_RETRIED = frozenset({408, 409, 429})
_OVERFLOW_SIGNS = ("maximum context length", "context_length_exceeded")
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
        timeout_s: Longest wait for each of connecting, writing and reading, in seconds.
        max_retries: Further attempts after the first.
        max_concurrency: Requests in flight at the same time.
    """

    base_url: str
    api_key_env: str
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
        if url.userinfo or url.query:
            raise ConfigError(
                "base_url must not carry a name, a password or a query, as it is written into "
                f"reports; put the key into the environment variable {self.api_key_env}"
            )
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s must be positive, got {self.timeout_s}")
        if self.max_retries < 0:
            raise ConfigError(f"max_retries must be >= 0, got {self.max_retries}")
        if self.max_concurrency < 1:
            raise ConfigError(f"max_concurrency must be >= 1, got {self.max_concurrency}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Connection:
    """What belongs to one event loop and cannot be used from another."""

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    slots: asyncio.Semaphore


class ChatEndpoint:
    """Posts chat completions, with retries.

    Tried again, with growing and jittered waits or as long as ``Retry-After`` says: status 408,
    409, 429 and 5xx, time-outs, lost connections, answers that are not JSON or have no choice.
    Any other 4xx fails at once.

    Args:
        spec: Where and how.
    """

    def __init__(self, spec: EndpointSpec) -> None:
        self.spec = spec
        self.num_retries = 0
        self._connection: _Connection | None = None

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return an answer with at least one choice.

        Raises:
            ContextOverflow: The server says that the prompt is too long.
            PolicyFailure: A request that it refuses, or no answer after the last attempt.
        """
        connection = self._connect()
        attempts = self.spec.max_retries + 1
        for attempt in range(attempts):
            try:
                async with connection.slots:
                    return await self._attempt(connection.client, body)
            except _Fault as fault:
                if attempt + 1 == attempts:
                    raise PolicyFailure(
                        f"{self.spec.base_url} gave no answer in {attempts} attempts, the last: "
                        f"{fault}; check the server, or raise timeout_s or max_retries"
                    ) from fault
                self.num_retries += 1
                await asyncio.sleep(
                    wait_s(attempt)
                    if fault.wait_s is None
                    else min(fault.wait_s, _LONGEST_RETRY_AFTER_S)
                )
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
            )
        return self._connection

    async def _attempt(self, client: httpx.AsyncClient, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post once and judge what came back."""
        key = os.environ.get(self.spec.api_key_env, "").strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{self.spec.base_url.rstrip('/')}/chat/completions"
        try:
            response = await client.post(url, json=dict(body), headers=headers)
        except httpx.TransportError as error:
            raise _Fault(f"{type(error).__name__}: {error}") from error
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response, key)
        return _read_body(response)

    def _refusal(self, response: httpx.Response, key: str) -> Exception:
        """Return the error that a status other than 200 stands for."""
        text = response.text.replace(key, "***") if key else response.text
        status = response.status_code
        shown = f"HTTP {status}: {text[:_SHOWN_CHARACTERS]}"
        if status in _RETRIED or status >= 500:
            return _Fault(shown, retry_after_s(response.headers.get("Retry-After")))
        if any(sign in text for sign in _OVERFLOW_SIGNS):
            return ContextOverflow(f"{self.spec.base_url} finds the prompt too long ({shown})")
        if status in (401, 403):
            return PolicyFailure(
                f"{self.spec.base_url} refused the key ({shown}); set the environment variable "
                f"{self.spec.api_key_env} to a valid one"
            )
        return PolicyFailure(
            f"{self.spec.base_url} refused the request ({shown}); check base_url, model and "
            "sampling"
        )


def _read_body(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON of an answer that has choices with messages."""
    try:
        body = response.json()
        choices = [choice["message"].get("content") for choice in body["choices"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        shown = response.text[:_SHOWN_CHARACTERS]
        raise _Fault(f"an answer that is no chat completion: {shown!r}") from error
    if not choices:
        raise _Fault("an answer without choices")
    return dict(body)
