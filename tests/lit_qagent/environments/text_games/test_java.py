"""No Java process outlives the program that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.environments.text_games.java import JavaProcess
from tests.lit_qagent.environments.text_games.needs import need_java

need_java("textworld-express")

_MARK = "QAGENT_TEST_MARK"
_PLAY = """
from lit_qagent.environments.text_games.textworld_express import TextWorldExpress
world = TextWorldExpress()
world.reset(world.tasks("train")[0])
"""
_ENDINGS = {
    "close": "world.close()\nprint('ready', flush=True)\nimport time; time.sleep(60)",
    "forgotten": "del world\nprint('ready', flush=True)\nimport time; time.sleep(60)",
    "exit": "",
    "exception": "raise RuntimeError('on purpose')",
    "os._exit": "import os; os._exit(3)",
    "fork": "import os\nif os.fork() == 0: raise SystemExit\nos.wait()\nworld.step('look around')",
}


def start(ending: str) -> tuple["subprocess.Popen[str]", str]:
    mark = uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", _PLAY + ending],
        env={**os.environ, _MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, mark


def java_of(mark: str) -> list[int]:
    """Return the Java processes that inherited the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_marked = f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes()
            is_java = b"java" in (folder / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if is_marked and is_java:
            found.append(int(folder.name))
    return found


def none_left(mark: str) -> bool:
    for _ in range(100):
        if not java_of(mark):
            return True
        time.sleep(0.1)
    return False


pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc"),
]


@pytest.mark.parametrize("ending", ["exit", "exception", "os._exit", "fork"])
def test_none_is_left_when_the_program_ends(ending: str) -> None:
    process, mark = start(_ENDINGS[ending])
    _, errors = process.communicate(timeout=60)
    assert none_left(mark)
    assert process.returncode == {"exception": 1, "os._exit": 3}.get(ending, 0), errors
    assert ("on purpose" in errors) == (ending == "exception")


@pytest.mark.parametrize("ending", ["close", "forgotten"])
def test_none_is_left_while_the_program_goes_on(ending: str) -> None:
    process, mark = start(_ENDINGS[ending])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert none_left(mark)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_none_is_left_after_a_signal(number: signal.Signals) -> None:
    process, mark = start("print('ready', flush=True)\nimport time; time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert len(java_of(mark)) == 1
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    assert none_left(mark)


def test_ctrl_c_in_a_terminal_does_not_reach_the_games() -> None:
    ending = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "os.killpg(os.getpgrp(), signal.SIGINT)\n"
        "import time; time.sleep(0.5)\n"
        "world.step('look around')\n"
    )
    mark = uuid4().hex
    done = subprocess.run(
        [sys.executable, "-c", _PLAY + ending],
        env={**os.environ, _MARK: mark},
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert none_left(mark)


def test_a_java_that_does_not_start_is_reported_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"a world: Java did not start.*heap"):
        JavaProcess(world="a world", jar=tmp_path / "none.jar", heap_mb=1)
