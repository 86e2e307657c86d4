"""Agents that search before they act, and a world whose best play is known."""

import asyncio
from collections.abc import Sequence
from typing import Any

from data_collection.agent import SearchTrials
from data_collection.spec import SearchSpec
from lit_qagent.agents.episode import Episode
from lit_qagent.agents.guided import GuidedAgent
from lit_qagent.core.records import (
    History,
)
from tests.data_collection.parts import LetterWorld

LETTERS = ["a", "b", "c"]
REWARDS = {"aa": 0.2, "ab": 0.4, "ca": 1.0, "cb": 0.1}


def search(**options: Any) -> SearchTrials:  # noqa: ANN401
    return SearchTrials(SearchSpec(**{"num_candidates": 4, **options}))


def play(trials: SearchTrials, world: LetterWorld, player: GuidedAgent, seed: int = 0) -> Episode:
    [task] = world.tasks("test")
    return asyncio.run(trials.play(player, world, task, seed=seed))


class LetterScorer:
    """Prefers what it is told to, whatever earns the reward."""

    def __init__(self, liked: str) -> None:
        self.liked = liked

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        wanted = self.liked[history.num_steps : history.num_steps + 1]
        return [2.0 if text == wanted else -2.0 for text in candidates]
