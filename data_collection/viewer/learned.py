"""What a Q-model thinks of every action of a tree."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TextIO

from data_collection.progress import ProgressDisplay, clock
from data_collection.tree_file import StoredTree
from lit_qagent.agents.prompts import extend_history
from lit_qagent.agents.selection import Scorer
from lit_qagent.core.errors import ContextOverflow
from lit_qagent.core.records import History

_IN_FLIGHT = 16


@dataclass(kw_only=True)
class ScoreMeter:
    """How far the scoring is.

    Attributes:
        num_trees: Trees to score.
        trees: Trees done.
        actions: Actions scored.
        started: Clock at the start, in seconds.
    """

    num_trees: int
    trees: int = 0
    actions: int = 0
    started: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """Return the line to show."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = (self.num_trees - self.trees) * seconds / self.trees if self.trees else None
        return (
            f"scored trees {self.trees}/{self.num_trees} | actions {self.actions} | "
            f"{self.actions / seconds:.0f} actions/s | ETA {clock(left)}"
        )


class TreeScorer:
    """Scores trees one after the other, the histories of one at once, and shows how far it is.

    Args:
        scorer: The Q-model.
        num_trees: Trees to come.
        stream: Where progress is shown; stderr by default.

    Attributes:
        num_too_long: Actions not scored as the Q-model's context was too short.
    """

    def __init__(self, scorer: Scorer, num_trees: int, stream: TextIO | None = None) -> None:
        self._scorer = scorer
        self._meter = ScoreMeter(num_trees=num_trees)
        self._display = ProgressDisplay(self._meter, stream)
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self.num_too_long = 0

    def live(self) -> AbstractContextManager[object]:
        """Return what shows the progress while it is entered."""
        return self._display.live()

    async def score(self, stored: StoredTree) -> list[float | None]:
        """Return the learned Q of each node; None at the root and where there is none."""
        tree = stored.tree
        values: list[float | None] = [None] * len(tree.nodes)
        histories = _histories(stored)

        async def score_children(children: Sequence[int], history: History) -> None:
            actions = [step.action for child in children if (step := tree[child].step)]
            async with self._room:
                found = await self._ask(history, actions)
            for child, value in zip(children, found, strict=True):
                values[child] = value

        await asyncio.gather(
            *(
                score_children(node.children, histories[node.index])
                for node in tree.nodes
                if node.children
            )
        )
        self._meter.trees += 1
        self._display.refresh(last=self._meter.trees == self._meter.num_trees)
        return values

    async def _ask(self, history: History, actions: Sequence[str]) -> Sequence[float | None]:
        try:
            values: Sequence[float | None] = await self._scorer.score(history, actions)
        except ContextOverflow:
            self.num_too_long += len(actions)
            return [None] * len(actions)
        self._meter.actions += len(actions)
        self._display.refresh()
        return values


def _histories(stored: StoredTree) -> list[History]:
    """Return the chat after each node; a parent comes before its children."""
    histories: list[History] = []
    for node in stored.tree.nodes:
        if node.parent is None or node.step is None:
            histories.append(History(head=stored.header.head))
        else:
            histories.append(extend_history(histories[node.parent], node.step))
    return histories
