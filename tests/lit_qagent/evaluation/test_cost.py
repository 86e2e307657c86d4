import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.evaluation.cost import (
    Prices,
    cost_per_episode,
    cost_ratio,
    dollars,
    is_matched,
    nearest_in_cost,
)
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


def test_dollars_of_tokens_by_hand() -> None:
    tokens = {"requests": 9, "prompt_tokens": 3_000_000, "generated_tokens": 500_000}
    # 3 million at 0.5 and half a million at 10 dollars per million.
    assert dollars(tokens, {"prompt": 0.5, "generated": 10.0}) == 1.5 + 5.0


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


def test_of_agents_of_one_rule_the_nearest_in_cost_is_found() -> None:
    def agent(selector: str, num_candidates: int, **more: object) -> dict[str, object]:
        return {"selector": selector, "sampling": None, "num_candidates": num_candidates, **more}

    agents = {
        "q": agent("Q", 4),
        "q_2": agent("Q", 2),
        "q_8": agent("Q", 8),
        "plain": agent("First", 1),
        "random_4": agent("Random", 4),
        "random_8": agent("Random", 8),
        "random_64": agent("Random", 64),
        "random_cold": agent("Random", 8, sampling={"temperature": 0.5}),
        "random_tries": agent("Random", 8, trials={"class": "BestOf", "num_trials": 2}),
    }
    cost = {
        name: {"prompt_tokens": 0.0, "generated_tokens": tokens}
        for name, tokens in {
            "q": 100.0,
            "random_4": 40.0,
            "random_8": 80.0,
            "random_64": 640.0,
        }.items()
    }

    # Of the treatment's own rule there is nothing to match, and a rule of one agent has no choice.
    assert nearest_in_cost("q", list(agents)[1:], agents, cost) == {
        "random_8": ["random_4", "random_8", "random_64"]
    }
    # The control alone was asked for, but its variants were played; what cost nothing is no match.
    assert nearest_in_cost("q", ["random_4"], agents, {**cost, "random_8": None}) == {
        "random_4": ["random_4", "random_64"]
    }
    assert nearest_in_cost("q", ["plain"], agents, cost) == {}
    assert nearest_in_cost("q", ["random_4"], agents, {**cost, "q": None}) == {}


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prices must be >= 0, .* got prompt -1"):
        Prices(prompt=-1, generated=1)
