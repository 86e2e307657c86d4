"""The live progress line of a collection, on stderr."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from data_collection.iterations import Iteration, TreeEnd

_PLAIN_LINE_EVERY_S = 10.0


class Meter(Protocol):
    """Anything that says in one line how far it is."""

    def line(self) -> str:
        """Return the line to show."""
        ...


def clock(seconds: float | None) -> str:
    """Return seconds as hours, minutes and seconds; a dash where they are not known.

    Examples:
        >>> clock(3723.4)
        '1:02:03'
    """
    if seconds is None:
        return "-"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


@dataclass(kw_only=True)
class ProgressMeter:
    """Counts of the run in progress.

    Attributes:
        num_trees: Trees the run is to have at its end.
        max_iterations: Iterations per tree at most, for the estimate of the time left.
        done: Trees done, those of earlier runs included.
        resumed: Trees that earlier runs had finished.
        successes: Trees with a full reward among those done.
        failures: Trees failed.
        nodes: Nodes of trees seen in this run.
        iterations: Iterations of this run.
        open_iterations: Iterations so far of the trees in flight.
        generated_tokens: Tokens generated in this run.
        started: Clock at the start, in seconds.
    """

    num_trees: int
    max_iterations: int
    done: int = 0
    resumed: int = 0
    successes: int = 0
    failures: int = 0
    nodes: int = 0
    iterations: int = 0
    open_iterations: int = 0
    generated_tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self.started, 1e-9)

    def count(self, iteration: Iteration) -> None:
        """Count one iteration of a tree in flight."""
        self.iterations += 1
        self.open_iterations += 1
        self.nodes += len(iteration.children)
        self.generated_tokens += iteration.cost.generated_tokens

    def finish(self, end: TreeEnd, *, is_success: bool) -> None:
        """Count a tree that is done."""
        self.done += 1
        self.successes += is_success
        self.failures += end.reason == "failed"

    def resume_done(self, end: TreeEnd, *, is_success: bool) -> None:
        """Count a tree that an earlier run has finished."""
        self.resumed += 1
        self.nodes += end.num_nodes
        self.finish(end, is_success=is_success)

    def fail_to_start(self) -> None:
        """Count a task that the world could not start."""
        self.done += 1
        self.failures += 1

    def line(self) -> str:
        """Return the line to show."""
        success = f"{self.successes / self.done:.0%}" if self.done else "-"
        return (
            f"trees {self.done}/{self.num_trees} | nodes {self.nodes} | success {success} | "
            f"{self.generated_tokens / self.seconds:.0f} tokens/s | failed {self.failures} | "
            f"ETA {clock(self._seconds_left())}"
        )

    def _seconds_left(self) -> float | None:
        """Estimate from the trees done in this run and the share done of those in flight."""
        worked = self.done - self.resumed + self.open_iterations / self.max_iterations
        if not worked:
            return None
        left = self.num_trees - self.resumed - worked
        return max(left, 0.0) * self.seconds / worked


class ProgressDisplay:
    """Shows a meter: one line that changes on a terminal, a line now and then elsewhere.

    Args:
        meter: What to show.
        stream: Where to; stderr by default.
    """

    def __init__(self, meter: Meter, stream: TextIO | None = None) -> None:
        self._meter = meter
        self._stream = stream or sys.stderr
        self._next_line = 0.0

    def live(self) -> AbstractContextManager[object]:
        """Return what keeps the line alive while it is entered."""
        if not self._stream.isatty():
            return nullcontext()
        # Only a terminal needs rich, and it costs start-up time.
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        return Live(
            get_renderable=lambda: Text(self._meter.line()),
            console=Console(file=self._stream),
            refresh_per_second=2,
        )

    def refresh(self, *, last: bool = False) -> None:
        """Write a plain line if one is due; a terminal refreshes itself."""
        now = time.monotonic()
        if (now < self._next_line and not last) or self._stream.isatty():
            return
        self._next_line = now + _PLAIN_LINE_EVERY_S
        self._stream.write(self._meter.line() + "\n")
        self._stream.flush()
