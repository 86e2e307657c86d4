"""Fetches pages of an original shop server: limits on time and size, retries, clear failures."""

import time
from dataclasses import dataclass

import httpx

from lit_qagent.core.errors import ConfigError, EnvironmentFailure

_FIRST_WAIT_S = 0.2
_RETRIED = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class RemoteSpec:
    """How the server is reached.

    Attributes:
        base_url: Where it listens.
        timeout_s: Limit for one request, connection and whole answer together.
        retries: Further attempts after a time-out, a lost connection, or status 429 or 5xx; each
            waits twice as long as the one before.
        max_page_mb: Largest page that is read.
    """

    base_url: str = "http://localhost:3000"
    timeout_s: float = 30.0
    retries: int = 3
    max_page_mb: float = 8.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"remote.base_url must start with http:// or https://, got {self.base_url!r}"
            )
        for name in ("timeout_s", "max_page_mb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"remote.{name} must be > 0, got {getattr(self, name)}")
        if self.retries < 0:
            raise ConfigError(f"remote.retries must be >= 0, got {self.retries}")


class RemoteClient:
    """A connection pool to one server; safe to share between branches and threads.

    Args:
        spec: How the server is reached.

    Attributes:
        num_requests: Requests sent so far, repeated ones included.
    """

    def __init__(self, spec: RemoteSpec) -> None:
        self._spec = spec
        self._http = httpx.Client(timeout=spec.timeout_s, follow_redirects=False)
        self.num_requests = 0

    def get(self, path: str) -> str:
        """Return the page at a path.

        Raises:
            EnvironmentFailure: No usable answer after all attempts.
        """
        url = self._spec.base_url.rstrip("/") + path
        problem = ""
        for attempt in range(self._spec.retries + 1):
            if attempt:
                time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
            self.num_requests += 1
            try:
                status, text = self._read(url)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if status == 200:
                return text
            problem = f"status {status}"
            if status not in _RETRIED:
                break
        raise EnvironmentFailure(
            f"the shop server did not answer {url[:200]} ({problem}); start the original WebShop "
            f"server, or correct remote.base_url ({self._spec.base_url}) or remote.timeout_s "
            f"({self._spec.timeout_s:g})"
        )

    def _read(self, url: str) -> tuple[int, str]:
        """Return status and text of one answer within the limits."""
        until = time.monotonic() + self._spec.timeout_s
        most = int(self._spec.max_page_mb * 2**20)
        content = bytearray()
        with self._http.stream("GET", url) as answer:
            if answer.status_code != 200:
                return answer.status_code, ""
            for chunk in answer.iter_bytes():  # as they come: a chunk size would wait for more
                content += chunk
                if len(content) > most:
                    raise EnvironmentFailure(
                        f"the shop server's page {url[:200]} is over {self._spec.max_page_mb:g} "
                        "MB; raise remote.max_page_mb if that is right"
                    )
                if time.monotonic() > until:
                    raise httpx.ReadTimeout(f"answer not complete in {self._spec.timeout_s:g} s")
        return 200, content.decode("utf-8", errors="replace")
