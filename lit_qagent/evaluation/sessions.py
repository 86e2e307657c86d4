"""What each session of playing has spent, written down as it goes, so that a kill keeps it."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from lit_qagent.core.errors import StoreError
from lit_qagent.evaluation.episodes import PlayedEpisode, cut_torn_line

SESSIONS_GLOB = "sessions*.jsonl"


class Session:
    """Writes down what one process spends on playing; use it as a context manager.

    A row is appended at the start, after every episode and at the end. Of rows with the same
    ``began`` the last one counts.

    Args:
        path: File of JSON lines: ``began`` (Unix time, tells sessions apart), ``seconds`` (wall),
            ``peak_rss_gb`` (largest resident memory of this process so far, 1e9 bytes),
            ``episodes`` and ``failures`` played, ``cut_bytes``, and ``finished``: true in the last
            row of a session that nothing has cut short.
        cut_bytes: Length of the torn line that was cut off the trajectories at the start.
        clock: Seconds from any start.
    """

    def __init__(
        self, path: Path, *, cut_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._cut_bytes = cut_bytes
        self._clock = clock
        self._episodes = self._failures = 0

    def __enter__(self) -> Self:
        self._began, self._start = time.time(), self._clock()
        with self._path.open("a+b") as file:
            cut_torn_line(file)
        self._write(finished=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write(finished=kind is None)

    def count(self, episode: PlayedEpisode) -> None:
        """Count one more episode."""
        self._episodes += 1
        self._failures += episode.failure is not None
        self._write(finished=False)

    def _write(self, *, finished: bool) -> None:
        """Append a row and leave it to the operating system, so that a killed process keeps it."""
        row = {
            "began": self._began,
            "seconds": self._clock() - self._start,
            "peak_rss_gb": peak_rss_gb(),
            "episodes": self._episodes,
            "failures": self._failures,
            "cut_bytes": self._cut_bytes,
            "finished": finished,
        }
        with self._path.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")


class Spent(NamedTuple):
    """What all sessions of a results folder have spent, as far as their rows say.

    Attributes:
        seconds: Wall time; processes beside each other count once.
        peak_rss_gb: Largest resident memory of a process, 1e9 bytes.
        cut_sessions: Sessions that were killed or interrupted, or still go on. What their
            unfinished episodes have cost is not known, and of those killed no time after the last
            row.
    """

    seconds: float
    peak_rss_gb: float
    cut_sessions: int


class _Row(NamedTuple):
    """What counts of the last row of a session."""

    seconds: float
    peak_rss_gb: float
    finished: bool


def read_sessions(folder: Path) -> Spent:
    """Read every sessions file in a folder.

    Raises:
        StoreError: A line is corrupt.
    """
    files = [_last_rows(path) for path in sorted(folder.glob(SESSIONS_GLOB))]
    rows = [row for some in files for row in some]
    return Spent(
        seconds=max((sum(row.seconds for row in some) for some in files), default=0.0),
        peak_rss_gb=max((row.peak_rss_gb for row in rows), default=0.0),
        cut_sessions=sum(not row.finished for row in rows),
    )


def _last_rows(path: Path) -> list[_Row]:
    """Return the last row of each session in a file, without a torn last line.

    Earlier versions wrote a single row, at the end, without ``began`` and ``finished``.
    """
    last: dict[float | str, _Row] = {}
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            last[row.get("began", f"line {number}")] = _Row(
                float(row["seconds"]), float(row["peak_rss_gb"]), row.get("finished", True)
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"Results file {str(path)!r}, line {number} is no row of a session ({error!r}); "
                "delete that line, and its cost will be missing"
            ) from error
    return list(last.values())


def peak_rss_gb() -> float:
    """Return the largest resident memory of this process so far, in GB (1e9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
