"""The record of a loop, ``improve.json``: what it was set to, what each round found, its cost."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lit_qagent.core import manifest
from lit_qagent.core.errors import StoreError

RECORD_FILE = "improve.json"
SCHEMA_VERSION = 1
_SUBJECT = "Loop folder"


@dataclass(kw_only=True)
class Record:
    """What is known of a loop; every change is written at once by `save`.

    Attributes:
        path: The file.
        settings: What decides the outcome, see `Improve.settings`, and the configs.
        status: ``running`` (also of one that was killed), ``stopped`` (by the budget, Ctrl-C, a
            failed stage or a policy without answers) or ``finished``.
        why: Why it is in that status, in words.
        accepted: Round of the Q-model accepted last; None before the first.
        checkpoint: Its folder.
        rounds: One row per finished round.
        seconds: Wall time of all stages by round, also of those that were interrupted.
        spent: What the loop has cost.
        mlflow: Run of the loop and of each round, by name; empty without MLflow.
    """

    path: Path
    settings: dict[str, Any]
    status: str = "running"
    why: str = ""
    accepted: int | None = None
    checkpoint: str | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    mlflow: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of the loop."""
        return self.path.parent

    def save(self) -> None:
        """Write the file; a kill leaves either the old or the new one."""
        values = {key: value for key, value in asdict(self).items() if key != "path"}
        manifest.write_json(self.path, {"schema_version": SCHEMA_VERSION, **values})

    def add_seconds(self, round_number: int, seconds: float) -> None:
        """Count the wall time of a stage, finished or not."""
        key = str(round_number)
        self.seconds[key] = round(self.seconds.get(key, 0.0) + seconds, 1)


def round_folder(record: Record, number: int) -> Path:
    """Return the folder of a round; rounds count from 1."""
    return record.folder / f"round_{number}"


def open_record(folder: Path, settings: Mapping[str, Any]) -> Record:
    """Read the record of a folder, or make one; settings must be those it was made with.

    Raises:
        StoreError: It was made with other settings, is damaged, or of another schema.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        record = Record(path=path, settings=dict(settings))
        folder.mkdir(parents=True, exist_ok=True)
        record.save()
        return record
    values = manifest.read(path, _SUBJECT)
    version = values.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{_SUBJECT} {str(folder)!r} has schema {version}, this version reads "
            f"{SCHEMA_VERSION}; use another folder"
        )
    found = manifest.differences(values.get("settings", {}), dict(settings))
    if found:
        lines = "".join(f"\n  {line}" for line in found)
        raise StoreError(
            f"{_SUBJECT} {str(folder)!r} was made with other settings:{lines}\n"
            "use these settings again or give another folder; the budget alone may change"
        )
    try:
        return Record(path=path, **values)
    except TypeError as error:
        raise StoreError(
            f"{_SUBJECT} {str(folder)!r}: {RECORD_FILE} is damaged ({error}); use another folder"
        ) from error


@contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Hold a folder for one loop; give the descriptor of its lock.

    Stages inherit the descriptor, so a loop that was killed leaves the folder locked until the
    stage it had started has ended too.

    Raises:
        StoreError: Another loop, or a stage of one, is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"{_SUBJECT} {str(folder)!r} is in use by another process, or by a stage that an "
                "earlier one has started; wait for it or end it"
            ) from None
        yield file.fileno()
