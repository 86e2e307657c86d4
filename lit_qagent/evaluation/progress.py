"""The live progress of an evaluation, on standard error."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from lit_qagent.evaluation.episodes import PlayedEpisode

_PLAIN_LINE_EVERY_S = 30.0


class EpisodeProgress:
    """One row per agent and one for all; plain lines now and then where there is no terminal.

    Args:
        totals: Agent -> episodes to play in this run.
        console: Where to write; standard error by default.
    """

    def __init__(self, totals: Mapping[str, int], console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._rows = {
            name: self._live.add_task(name, total=total, note="") for name, total in totals.items()
        }
        self._all = self._live.add_task("all", total=sum(totals.values()), note="")
        self._totals = dict(totals)
        self._done = dict.fromkeys(totals, 0)
        self._rewards = dict.fromkeys(totals, 0.0)
        self._failures = dict.fromkeys(totals, 0)
        self._tokens = 0
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def count(self, episode: PlayedEpisode) -> None:
        """Show one more episode."""
        name = episode.agent
        self._done[name] += 1
        self._failures[name] += episode.failure is not None
        self._rewards[name] += episode.reward
        self._tokens += episode.generated_tokens
        self._live.update(self._rows[name], advance=1, note=self._agent_note(name))
        self._live.update(self._all, advance=1, note=f"{self._tokens_per_second():.0f} tokens/s")
        self._say_plainly()

    def summary(self) -> str:
        """Return the state in one line."""
        agents = "; ".join(
            f"{name} {self._done[name]}/{total} {self._agent_note(name)}".strip()
            for name, total in self._totals.items()
        )
        done, total = sum(self._done.values()), sum(self._totals.values())
        elapsed = time.monotonic() - self._began
        left = f"{elapsed / done * (total - done):.0f} s left" if done else "time left unknown"
        return (
            f"{done}/{total} episodes ({agents}), {self._tokens_per_second():.0f} tokens/s, {left}"
        )

    def _agent_note(self, name: str) -> str:
        finished = self._done[name] - self._failures[name]
        notes = [f"reward {self._rewards[name] / finished:.2f}"] if finished else []
        if self._failures[name]:
            notes.append(f"failed {self._failures[name]}")
        return " ".join(notes)

    def _tokens_per_second(self) -> float:
        return self._tokens / max(time.monotonic() - self._began, 1e-9)

    def _say_plainly(self) -> None:
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line >= _PLAIN_LINE_EVERY_S:
            self._last_line = now
            self.say(self.summary())
