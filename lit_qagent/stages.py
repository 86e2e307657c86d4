"""Commands that follow each other, each in a process of its own; a finished one is not run again.

What a stage cost is kept in ``stages.json`` together with a hash of the configs up to it, so a
changed config restarts its stage and those behind it.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.manifest import write_json

STAGES_FILE = "stages.json"


class Command(Protocol):
    """One command of a run."""

    @property
    def name(self) -> str:
        """What tells it from the others."""
        ...

    @property
    def purpose(self) -> str:
        """What it does, for the reader."""
        ...

    @property
    def config(self) -> Path:
        """Its config file."""
        ...

    @property
    def arguments(self) -> list[str]:
        """What follows ``python``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """What a finished stage cost.

    Attributes:
        fingerprint: Hash of the configs of this stage and of those before it.
        seconds: Wall time.
        peak_rss_gb: Largest resident memory of one of its processes, in GB (1e9 bytes).
    """

    fingerprint: str
    seconds: float
    peak_rss_gb: float


def fingerprint(stages: Sequence[Command]) -> str:
    """Return a hash of the configs of the stages; a change to one restarts what follows it."""
    digest = hashlib.sha256()
    for stage in stages:
        digest.update(stage.config.read_bytes())
    return digest.hexdigest()[:16]


def run_stages(
    stages: Sequence[Command],
    folder: Path,
    *,
    say: Callable[[str], None],
    before: Callable[[Command], None] = lambda stage: None,
    after: Callable[[Command], None] = lambda stage: None,
    keep_open: Sequence[int] = (),
) -> dict[str, StageRecord]:
    """Run what has not run yet with these configs.

    Args:
        stages: In their order.
        folder: Where ``stages.json`` is kept.
        say: Told what is run.
        before: Called before a stage that is to run; an error there leaves it undone.
        after: Called behind one that has run, before it is noted as done.
        keep_open: File descriptors that the processes inherit.

    Raises:
        subprocess.CalledProcessError: A stage failed, or was interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / STAGES_FILE
    done = read_json(kept) if kept.exists() else {}
    records: dict[str, StageRecord] = {}
    for number, stage in enumerate(stages, start=1):
        mark = fingerprint(stages[:number])
        title = f"[{number}/{len(stages)}] {stage.purpose}"
        if done.get(stage.name, {}).get("fingerprint") == mark:
            records[stage.name] = StageRecord(**done[stage.name])
            say(f"\n{title}: done before")
            continue
        before(stage)
        say(f"\n{title}\n$ python {' '.join(stage.arguments)}")
        record = run_stage(stage, mark, keep_open=keep_open)
        after(stage)
        records[stage.name] = record
        write_json(kept, {name: asdict(record) for name, record in records.items()})
    return records


def run_stage(stage: Command, mark: str, *, keep_open: Sequence[int] = ()) -> StageRecord:
    """Run one command and measure it.

    Raises:
        subprocess.CalledProcessError: It failed, or was interrupted.
    """
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *stage.arguments], pass_fds=keep_open)
    with _terminates_too(process):
        while True:
            try:
                _, status, usage = os.wait4(process.pid, 0)
                break
            except KeyboardInterrupt:
                continue  # the terminal has told the stage too; it saves what it has and ends
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, stage.arguments)
    return StageRecord(
        fingerprint=mark,
        seconds=round(time.monotonic() - began, 1),
        peak_rss_gb=round(usage.ru_maxrss * 1024 / 1e9, 3),
    )


def exit_code(error: subprocess.CalledProcessError) -> int:
    """Return the exit status for a stage that failed; a signal counts as shells count it."""
    return int(error.returncode) if error.returncode > 0 else 128 - int(error.returncode)


def read_json(path: Path, remedy: str = "delete it to run its stage again") -> dict[str, Any]:
    """Return the object in a file.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(value).__name__}; {remedy}")
    return value


@contextmanager
def _terminates_too(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Hand SIGTERM on to the stage, which saves what it has and ends."""

    def hand_on(number: int, frame: object) -> None:
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def costs(records: Mapping[str, StageRecord]) -> dict[str, dict[str, Any]]:
    """Return the records as plain values."""
    return {name: asdict(record) for name, record in records.items()}
