"""Real servers for integration tests: started on a free port, ended with all their children."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server_process(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    ready_url: str | None = None,
    limit_s: float = 480.0,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server while the context lasts.

    Args:
        command: What to start.
        log: Where its output goes; its end is in the error if it does not start.
        environment: Variables besides the present ones.
        ready_url: Answers 200 once it is ready; None does not wait.
        limit_s: Longest wait for that.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        if ready_url is not None:
            wait_until_ready(ready_url, process, log, limit_s)
        yield process
    finally:
        end_all(process)


def wait_until_ready(
    url: str, process: "subprocess.Popen[bytes]", log: Path, limit_s: float
) -> None:
    """Wait until an address answers 200."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == httpx.codes.OK:
                return
        time.sleep(0.3)
    tail = log.read_text(errors="replace")[-3000:]
    raise AssertionError(f"{url} was not ready after {limit_s:.0f} s; the server said:\n{tail}")


def end_all(process: "subprocess.Popen[bytes]") -> None:
    """Kill a server and every process it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
