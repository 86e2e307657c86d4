import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.evaluation.cost import Prices, cost_per_episode, cost_ratio, is_matched
from tests.toy_players import make_episode

EPISODES = [
    make_episode("q", "a", requests=2, prompt_tokens=40, generated_tokens=12, seconds=1.0),
    # Two steps listed, and four more in trials before.
    make_episode(
        "q", "b", requests=4, prompt_tokens=80, generated_tokens=28, seconds=2.0, extra_steps=4
    ),
    make_episode("q", "c", steps=[], failure="PolicyFailure: x", requests=9),
]


def test_means_over_finished_episodes_by_hand() -> None:
    assert cost_per_episode(EPISODES, None) == {
        "requests": 3.0,
        "prompt_tokens": 60.0,
        "generated_tokens": 20.0,
        "environment_steps": 4.0,  # (2 + 6) / 2
        "seconds": 1.5,
    }


def test_dollars_come_from_prices_only() -> None:
    # 60 tokens at 2 dollars and 20 at 10 dollars per million: 0.00012 + 0.0002.
    cost = cost_per_episode(EPISODES, {"prompt": 2.0, "generated": 10.0})

    assert cost is not None
    assert cost["dollars"] == pytest.approx(0.00032)


def test_nothing_finished_costs_nothing_known() -> None:
    assert cost_per_episode(EPISODES[2:], None) is None
    assert cost_ratio(None, {"prompt_tokens": 1.0, "generated_tokens": 0.0}) is None


def test_costs_are_matched_within_a_tenth() -> None:
    ours = {"prompt_tokens": 90.0, "generated_tokens": 18.0}
    theirs = {"prompt_tokens": 50.0, "generated_tokens": 50.0}

    assert cost_ratio(ours, theirs) == pytest.approx(1.08)
    assert is_matched(1.08)
    assert is_matched(0.91)
    assert not is_matched(1.2)
    assert not is_matched(None)


def test_dollars_go_before_tokens_where_both_are_known() -> None:
    ours = {"prompt_tokens": 10.0, "generated_tokens": 0.0, "dollars": 3.0}
    theirs = {"prompt_tokens": 10.0, "generated_tokens": 0.0, "dollars": 1.5}

    assert cost_ratio(ours, theirs) == 2.0


def test_a_control_without_any_cost_has_no_ratio() -> None:
    ours = {"prompt_tokens": 10.0, "generated_tokens": 0.0}

    assert cost_ratio(ours, {"prompt_tokens": 0.0, "generated_tokens": 0.0}) is None


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prices must be >= 0, .* got prompt -1"):
        Prices(prompt=-1, generated=1)
