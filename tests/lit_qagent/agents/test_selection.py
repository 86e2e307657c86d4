import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from lit_qagent.agents.selection import (
    AdaptiveQSelector,
    FirstSelector,
    MajoritySelector,
    MostLikelySelector,
    OracleSelector,
    QSelector,
    RandomSelector,
    Selection,
    Selector,
)
from lit_qagent.core.errors import ConfigError, ModelError
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


def test_majority_counts_commands_whatever_was_thought() -> None:
    aloud = "Thought: {}.\nAction: click[{}]"
    texts = [aloud.format("a", "x"), aloud.format("b", "y"), aloud.format("c", "y")]

    assert _select(MajoritySelector(), "|".join(texts)).index == 1


def test_q_scores_one_command_with_two_thoughts_twice() -> None:
    texts = ["Thought: a.\nAction: click[x]", "Thought: longer.\nAction: click[x]"]

    assert _select(QSelector(), "|".join(texts)).scores == tuple(float(len(t)) for t in texts)


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


class BadScorer:
    """Gives the second candidate no number."""

    def __init__(self, value: float) -> None:
        self.value = value

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        return [1.0, self.value, *[0.0] * (len(candidates) - 2)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("selector", [QSelector(), AdaptiveQSelector()])
def test_a_q_that_is_no_number_is_refused_with_its_candidate(
    selector: Selector, value: float
) -> None:
    proposals = [Proposal(text=text, num_tokens=1) for text in ("a", "open[b]", "c")]

    with pytest.raises(
        ModelError, match=rf"value of {value} to candidate 'open\[b\]'.* checkpoint"
    ):
        asyncio.run(
            selector.select(HISTORY, proposals, rng=random.Random(0), scorer=BadScorer(value))
        )


def test_q_without_a_model_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="give a checkpoint"):
        asyncio.run(
            QSelector().select(
                HISTORY, [Proposal(text="a", num_tokens=1)], rng=random.Random(0), scorer=None
            )
        )


def test_most_likely_compares_means_over_tokens_not_sums() -> None:
    # Means -1.0, -0.5 and -0.75; the sum of the first is the largest.
    proposals = [
        Proposal(text="a", num_tokens=1, log_prob=-1.0),
        Proposal(text="bb", num_tokens=4, log_prob=-2.0),
        Proposal(text="cc", num_tokens=2, log_prob=-1.5),
    ]

    selection = asyncio.run(
        MostLikelySelector().select(HISTORY, proposals, rng=random.Random(0), scorer=None)
    )

    assert selection == Selection(index=1, scores=(-1.0, -0.5, -0.75))


def test_most_likely_is_refused_where_the_policy_reports_no_log_probabilities() -> None:
    with pytest.raises(ConfigError, match="this policy reports none; take a policy that does"):
        _select(MostLikelySelector(), "a|b")


@pytest.mark.parametrize(
    ("texts", "scores", "more"),
    [
        ("a|b", (1.0, 0.8), 2),  # close: two more
        ("a|b", (1.0, 0.4), 0),  # clear
        ("a|b", (1.0, 1.0), 2),  # equal values of different actions are as close as can be
        ("a|a", (1.0, 1.0), 0),  # the policy knows one action only
        # One command with two thoughts is one action too, and as good as its better message.
        ("Thought: a.\nAction: x[1]|Thought: b.\nAction: x[1]", (1.0, 0.9), 0),
        ("Thought: a.\nAction: x[1]|y[1]|Thought: b.\nAction: x[1]", (1.0, 0.3, 0.2), 0),
        ("a|b|c|d", (1.0, 0.9, 0.9, 0.9), 1),  # one is left of the budget of five
        ("a|b|c|d|e", (1.0, 0.9, 0.9, 0.9, 0.9), 0),  # the budget is spent
    ],
)
def test_adaptive_samples_more_only_while_the_best_two_are_close(
    texts: str, scores: tuple[float, ...], more: int
) -> None:
    selector = AdaptiveQSelector(first=2, more=2, margin=0.5)
    proposals = [Proposal(text=text, num_tokens=1) for text in texts.split("|")]

    assert selector.num_more(Selection(index=0, scores=scores), proposals, 5) == more


def test_adaptive_keeps_its_first_batch_within_the_budget() -> None:
    assert AdaptiveQSelector(first=3).num_first(2) == 2
    assert QSelector().num_first(7) == 7
    assert QSelector().num_more(Selection(index=0), [], 7) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptiveQSelector(first=1), "first must be >= 2, got 1: it samples more while"),
        (lambda: AdaptiveQSelector(more=0), "more must be >= 1, got 0"),
        (lambda: AdaptiveQSelector(margin=-1), "margin must be >= 0, got -1"),
        (lambda: OracleSelector(rollouts=0), "rollouts must be >= 1, got 0"),
    ],
)
def test_a_value_out_of_range_is_refused(make: Callable[[], Selector], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_only_the_upper_bound_uses_the_true_reward() -> None:
    honest = (FirstSelector, RandomSelector, MajoritySelector, MostLikelySelector, QSelector)
    assert all(kind.uses == "" for kind in (*honest, AdaptiveQSelector))
    assert OracleSelector.uses == "the true reward"
