"""A Java process whose objects Python calls: started with a limit on its memory, ended for sure.

The packages' own wrappers start one process per environment object, in the terminal's process
group (so that Ctrl-C ends it in the middle of a search), without authentication and without a limit
on its memory. One process here holds as many simulators as are wanted, which do not influence each
other. It ends with `close`, when its owner is forgotten, at exit, and, because it reads its
standard input, also when Python is killed.
"""

import importlib
import logging
import os
import queue
import shutil
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import EnvironmentFailure, MissingPackage

JAVA_PACKAGE = "default-jre-headless"
_START_LIMIT_S = 60.0
_CALL_LIMIT_S = 120.0
_END_LIMIT_S = 3.0


def find_java(world: str) -> str:
    """Return the Java to run: that of ``JAVA_HOME``, else the one on the path.

    Raises:
        MissingPackage: There is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise MissingPackage(
            f"{world} runs in Java, but there is no java on the path and JAVA_HOME names none; "
            f"on Debian and Ubuntu: apt install {JAVA_PACKAGE}"
        )
    return found


class JavaProcess:
    """One running Java process.

    Args:
        world: Whose it is, for messages.
        jar: The game's archive; its folder becomes the process's working folder.
        heap_mb: Most memory for Java objects.

    Raises:
        MissingPackage: Java or the package py4j is not installed.
        EnvironmentFailure: The process ended or said nothing while starting.
    """

    def __init__(self, *, world: str, jar: Path, heap_mb: int) -> None:
        self.world = world
        py4j = _import_py4j(world)
        classpath = os.pathsep.join((py4j.find_jar_path(), str(jar)))
        self._process = subprocess.Popen(
            [
                *(find_java(world), "-XX:+UseSerialGC", f"-Xmx{heap_mb}m", "-classpath", classpath),
                *("py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=jar.parent,  # games read files beside their archive
            process_group=0,
        )
        self._last_lines: deque[str] = deque(maxlen=5)
        lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(
            target=_read, args=(self._process, lines, self._last_lines), daemon=True
        )
        self._reader.start()
        self._gateway: Any = None
        self._end = weakref.finalize(self, _end_process, self._process, self._reader, os.getpid())
        port, token = self._address(lines)
        parameters = py4j.GatewayParameters(
            port=port,
            auth_token=token,
            read_timeout=_CALL_LIMIT_S,
            enable_memory_management=False,  # only simulators and short lists are made there
        )
        self._gateway = py4j.JavaGateway(gateway_parameters=parameters)
        self.classes = self._gateway.jvm
        self._java_error: type[Exception] = py4j.Py4JJavaError
        self._errors: tuple[type[Exception], ...] = (py4j.Py4JError, OSError)

    @property
    def is_alive(self) -> bool:
        """True while the process runs and answers."""
        return self._end.alive and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def call(self, method: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        """Call a Java method.

        Raises:
            EnvironmentFailure: The method threw, or the process has ended or does not answer.
        """
        try:
            return method(*arguments)
        except self._java_error as error:
            thrown = str(getattr(error, "java_exception", error)).splitlines()[0]
            raise EnvironmentFailure(
                f"{self.world}: the game threw {thrown[:200]} at {arguments!r:.100}; "
                "the next episode starts from a fresh simulator"
            ) from None
        except self._errors as error:
            status = self._process.poll()
            what = f"ended with status {status}" if status is not None else "does not answer"
            self.close()
            raise EnvironmentFailure(
                f"{self.world}: the Java process {self.pid} {what} ({type(error).__name__}); "
                f"it last said: {' '.join(self._last_lines)[-300:] or 'nothing'}. "
                "The next episode starts a new process"
            ) from None

    def close(self) -> None:
        """End the process and wait for its end; may be called twice."""
        if self._gateway is not None and self._end.alive:
            with suppress(Exception):
                self._gateway.close()
        self._end()

    def _address(self, lines: "queue.Queue[str]") -> tuple[int, str]:
        """Read the port and the password that the process writes once it is ready."""
        try:
            while not (line := lines.get(timeout=_START_LIMIT_S)).isdigit():
                if not line:
                    raise queue.Empty
            return int(line), lines.get(timeout=_START_LIMIT_S)
        except queue.Empty:
            said = " ".join(self._last_lines) or "nothing"
            self.close()
            raise EnvironmentFailure(
                f"{self.world}: Java did not start within {_START_LIMIT_S:.0f} s; it said: {said}"
            ) from None


def _read(
    process: "subprocess.Popen[str]", lines: "queue.Queue[str]", last_lines: "deque[str]"
) -> None:
    """Empty the process's output, which would block it when full; pass the first lines on."""
    assert process.stdout is not None
    num_lines = 0
    with suppress(ValueError, OSError):
        for line in process.stdout:
            last_lines.append(line.strip())
            num_lines += 1
            if num_lines <= 20 and line.strip():
                lines.put(line.strip())
    lines.put("")


def _end_process(process: "subprocess.Popen[str]", reader: threading.Thread, owner: int) -> None:
    """End a Java process; does nothing in a process that was forked from its owner."""
    if os.getpid() != owner:
        return
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        process.stdin.close()
    process.terminate()
    try:
        process.wait(timeout=_END_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    reader.join(timeout=_END_LIMIT_S)
    process.stdout.close()


def _import_py4j(world: str) -> Any:  # noqa: ANN401
    """Return py4j's module of gateways, quiet: what it logs is raised as an error here."""
    try:
        module = importlib.import_module("py4j.java_gateway")
    except ImportError:
        raise MissingPackage(
            f"{world} needs the package py4j; pip install 'lit-qagent[worlds]'"
        ) from None
    logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
    return module
