"""Asks a MediaWiki API: politely, patiently with faults, and never for more than it can hold."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock

from lit_qagent import __version__
from lit_qagent.core.backoff import retry_after_s, wait_s
from lit_qagent.core.errors import ConfigError, EnvironmentFailure

_RETRIED = frozenset({408, 429})
_BUSY_CODES = ("maxlag", "ratelimited", "readonly", "internal_api_error", "cirrussearch-")
_LONGEST_RETRY_AFTER_S = 120.0
_MAX_BYTES = 16_000_000
_SHOWN_CHARACTERS = 200


class _Fault(Exception):
    """A failure that another attempt may not meet; `wait_s` is the server's wish, if it has one."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiSpec:
    """Whom to ask, as whom, and how patiently.

    Attributes:
        url: Address of ``api.php``.
        contact: Mail address or web page of whoever runs this.
        requests_per_second: Of all processes that share a cache folder together.
        timeout_s: Longest wait for one whole answer, in seconds.
        max_retries: Further attempts after the first.
    """

    url: str
    contact: str
    requests_per_second: float
    timeout_s: float
    max_retries: int

    def __post_init__(self) -> None:
        url = httpx.URL(self.url)
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query:
            raise ConfigError(
                "api_url must be an http(s) address without password or query such as "
                f"https://en.wikipedia.org/w/api.php, got {self.url!r}"
            )
        if not self.contact.strip() or not (self.contact.isascii() and self.contact.isprintable()):
            raise ConfigError(
                "contact must be a mail address or web page by which the wiki's operators can "
                f"reach you, got {self.contact!r}"
            )
        if self.requests_per_second <= 0:
            raise ConfigError(f"requests_per_second must be > 0, got {self.requests_per_second}")
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s must be > 0, got {self.timeout_s}")
        if self.max_retries < 0:
            raise ConfigError(f"max_retries must be >= 0, got {self.max_retries}")


class Pace:
    """Hands out moments to send a request, one after the other, to all who share a file.

    Args:
        path: The file that keeps the next free moment.
        per_second: Requests per second.
    """

    def __init__(self, path: Path, per_second: float) -> None:
        self._path = path
        self._gap_s = 1 / per_second

    def wait(self) -> None:
        """Sleep until the next free moment, and take it."""
        with self._lock():
            now = time.time()
            moment = self._next(now)
            self._path.write_text(repr(moment + self._gap_s))
        time.sleep(moment - now)

    def hold(self, seconds: float) -> None:
        """Let nobody send for a while."""
        with self._lock():
            now = time.time()
            self._path.write_text(repr(max(self._next(now), now + seconds)))

    def _next(self, now: float) -> float:
        moment = 0.0
        with suppress(OSError, ValueError):  # nobody has sent yet, or the disk was full
            moment = float(self._path.read_text())
        # A clock that was set back must not stop everything.
        return max(now, min(moment, now + 2 * _LONGEST_RETRY_AFTER_S))

    def _lock(self) -> FileLock:
        return FileLock(f"{self._path}.lock")


class WikiApi:
    """Gets answers as JSON, safe to use from many threads.

    Tried again, with growing and jittered waits, at least as long as ``Retry-After`` says: status
    408, 429 and 5xx, time-outs, lost connections, answers that are not what the API gives, and
    errors that it calls passing. A wish for a wait of more than two minutes, and anything else
    that it refuses, fails at once.

    Args:
        spec: Whom and how.
        pace: When to send.
    """

    def __init__(self, spec: ApiSpec, pace: Pace) -> None:
        self.spec = spec
        self.num_requests = 0
        self._pace = pace
        agent = f"lit_qagent/{__version__} ({spec.contact.strip()}) httpx/{httpx.__version__}"
        self._client = httpx.Client(timeout=spec.timeout_s, headers={"User-Agent": agent})

    def ask(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Return the ``query`` part of an answer.

        Raises:
            EnvironmentFailure: The API refused, or gave no answer in the last attempt.
        """
        attempts = self.spec.max_retries + 1
        for attempt in range(attempts):
            self._pace.wait()
            try:
                return self._attempt(parameters)
            except _Fault as fault:
                if attempt + 1 == attempts:
                    raise EnvironmentFailure(
                        f"{self.spec.url} gave no answer in {attempts} attempts, the last: "
                        f"{fault}; check the connection, or raise timeout_s or max_retries"
                    ) from fault
                self._rest(attempt, fault)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _rest(self, attempt: int, fault: _Fault) -> None:
        """Wait before the next attempt; while the server asks for rest, nobody sends."""
        if fault.wait_s is None:
            time.sleep(wait_s(attempt))
            return
        if fault.wait_s > _LONGEST_RETRY_AFTER_S:
            raise EnvironmentFailure(
                f"{self.spec.url} asks to wait {fault.wait_s:.0f} s ({fault}); "
                "try again later, with a lower requests_per_second"
            ) from fault
        self._pace.hold(fault.wait_s)
        time.sleep(wait_s(attempt))

    def _attempt(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        self.num_requests += 1
        try:
            with self._client.stream("GET", self.spec.url, params=dict(parameters)) as response:
                body = self._read(response)
        except httpx.RequestError as error:
            raise _Fault(f"{type(error).__name__}: {error}") from error
        shown = body[:_SHOWN_CHARACTERS].decode(errors="replace")
        retry_after = retry_after_s(response.headers.get("Retry-After"))
        if response.status_code in _RETRIED or response.status_code >= 500:
            raise _Fault(f"HTTP {response.status_code}: {shown!r}", retry_after)
        if response.status_code != httpx.codes.OK:
            raise EnvironmentFailure(
                f"{self.spec.url} refused the request (HTTP {response.status_code}: {shown!r}); "
                "check api_url and contact"
            )
        return self._judge(body, shown, retry_after)

    def _judge(self, body: bytes, shown: str, retry_after: float | None) -> dict[str, Any]:
        """Return the ``query`` part of a body."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Fault(f"an answer that is not JSON: {shown!r}") from error
        if not isinstance(answer, dict):
            raise _Fault(f"an answer that is not an object: {shown!r}")
        refusal = answer.get("error")
        if refusal is not None:
            code = str(refusal.get("code")) if isinstance(refusal, dict) else ""
            if code.startswith(_BUSY_CODES):
                raise _Fault(f"API error {code}: {shown!r}", retry_after)
            raise EnvironmentFailure(f"{self.spec.url} refused the request ({shown!r})")
        query = answer.get("query")
        if not isinstance(query, dict):
            raise _Fault(f"an answer without a result: {shown!r}")
        return query

    def _read(self, response: httpx.Response) -> bytes:
        """Return the body, unless it drips in too slowly or is too large."""
        deadline = time.monotonic() + self.spec.timeout_s
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_BYTES:
                raise EnvironmentFailure(
                    f"{self.spec.url} sent more than {_MAX_BYTES // 1_000_000} MB for one page"
                )
            if time.monotonic() > deadline:
                raise _Fault(f"an answer took longer than timeout_s = {self.spec.timeout_s}")
        return bytes(body)
