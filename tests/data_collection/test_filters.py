from collections import Counter
from dataclasses import replace

import pytest

from data_collection.filters import PairFilter
from data_collection.pair_draft import DrawnPair
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.pairs import PreferencePair

PAIR = PreferencePair(
    prompt=[{"role": "user", "content": "task"}],
    chosen=[{"role": "assistant", "content": "Thought: long.\nAction: buy[a  b]"}],
    rejected=[{"role": "assistant", "content": "Thought: other.\nAction: buy[a b]"}],
    task_id="t",
    tree_id="t-1",
    depth=0,
    q_chosen=0.75,
    q_rejected=0.25,
    visits_chosen=3,
    visits_rejected=2,
    rule="paper",
    environment="shop",
    prompt_version="1.1",
)
DRAWN = DrawnPair(PAIR, is_chosen_valid=False, is_rejected_valid=True)


@pytest.mark.parametrize(
    ("passes", "hits", "reason"),
    [
        ({"min_margin": 0.5}, {"min_margin": 0.51}, "pairs_below_min_margin"),
        ({"min_visits": 2}, {"min_visits": 3}, "pairs_below_min_visits"),
        ({"max_characters": 32}, {"max_characters": 31}, "pairs_above_max_characters"),
        ({}, {"distinct_commands": True}, "pairs_of_equal_commands"),
        ({}, {"valid_chosen": True}, "pairs_with_invalid_chosen_action"),
    ],
)
def test_each_filter_keeps_up_to_its_limit_and_counts_the_rest(
    passes: dict[str, object], hits: dict[str, object], reason: str
) -> None:
    assert len(PAIR.rejected[0]["content"]) == 32
    removed: Counter[str] = Counter()
    assert PairFilter(**passes).keep([DRAWN], removed) == [DRAWN]  # type: ignore[arg-type]
    assert removed == {}
    assert PairFilter(**hits).keep([DRAWN], removed) == []  # type: ignore[arg-type]
    assert removed == {reason: 1}


def test_a_pair_is_counted_once_under_the_first_reason() -> None:
    removed: Counter[str] = Counter()
    keep = PairFilter(min_margin=0.9, min_visits=9, distinct_commands=True)
    assert keep.keep([DRAWN, DRAWN], removed) == []
    assert removed == {"pairs_below_min_margin": 2}


def test_other_commands_are_distinct() -> None:
    other = replace(PAIR, rejected=[{"role": "assistant", "content": "buy[c]"}])
    drawn = DrawnPair(other, is_chosen_valid=True, is_rejected_valid=True)
    keep = PairFilter(distinct_commands=True, valid_chosen=True)
    assert keep.keep([drawn], Counter()) == [drawn]


def test_the_card_names_what_was_given() -> None:
    assert PairFilter(min_margin=0.5).settings() == {"min_margin": 0.5}
    assert PairFilter(min_visits=2, valid_chosen=True).settings() == {
        "min_margin": None,
        "min_visits": 2,
        "valid_chosen": True,
    }


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_visits must be >= 1, got 0; leave it out"):
        PairFilter(min_visits=0)
