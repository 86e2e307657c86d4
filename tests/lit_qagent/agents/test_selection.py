import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from lit_qagent.agents.selection import (
    FirstSelector,
    MajoritySelector,
    QSelector,
    RandomSelector,
    Selection,
    Selector,
)
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import History, Proposal

HISTORY = History(head=())


class LengthScorer:
    """Gives each candidate its length, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        self.asked.append(candidates)
        return [float(len(candidate)) for candidate in candidates]


def _select(selector: Selector, texts: str, seed: int = 0) -> Selection:
    proposals = [Proposal(text=text, num_tokens=1) for text in texts.split("|")]
    return asyncio.run(
        selector.select(HISTORY, proposals, rng=random.Random(seed), scorer=LengthScorer())
    )


def test_first_takes_the_first() -> None:
    assert _select(FirstSelector(), "a|bbb|cc").index == 0


def test_random_is_uniform_and_follows_its_seed() -> None:
    counts = Counter(_select(RandomSelector(), "a|b|c|d", seed).index for seed in range(4000))
    # each count is binomial(4000, 1/4): mean 1000, standard deviation 27
    assert all(abs(counts[index] - 1000) < 5 * 27 for index in range(4))
    assert _select(RandomSelector(), "a|b|c|d", 7) == _select(RandomSelector(), "a|b|c|d", 7)


def test_majority_counts_equal_actions_and_breaks_ties_by_order() -> None:
    assert _select(MajoritySelector(), "x|go  on|y|go on").index == 1
    assert _select(MajoritySelector(), "x|y").index == 0


def test_q_takes_the_highest_value() -> None:
    selection = _select(QSelector(), "a|ccc|bb")
    assert selection.index == 1
    assert selection.scores == (1.0, 3.0, 2.0)


def test_q_scores_equal_actions_once() -> None:
    scorer = LengthScorer()
    proposals = [Proposal(text=text, num_tokens=1) for text in ("go on", "go  on", "stop")]
    selection = asyncio.run(
        QSelector().select(HISTORY, proposals, rng=random.Random(0), scorer=scorer)
    )
    assert scorer.asked == [["go on", "stop"]]
    assert selection.scores == (5.0, 5.0, 4.0)


def test_q_without_a_model_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="give a checkpoint"):
        asyncio.run(
            QSelector().select(
                HISTORY, [Proposal(text="a", num_tokens=1)], rng=random.Random(0), scorer=None
            )
        )
