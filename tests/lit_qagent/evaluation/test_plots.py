import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_qagent.evaluation.cost import cost_ratio, is_matched, nearest_in_cost
from lit_qagent.evaluation.plots import curve_plots, difference_plot, reward_plot


def agent_row(num_candidates: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    interval = {"reward": {"low": 0.1, "high": 0.3}}
    row = {"selector": "a.FirstSelector", "sampling": None, "num_candidates": num_candidates}
    return {**row, "reward": 0.2, "tokens": 9.0 * num_candidates, "intervals": interval, **changes}


def test_only_agents_that_differ_in_their_candidates_alone_share_a_line() -> None:
    usual = {"temperature": 2.0, "top_p": 1.0, "max_tokens": 8, "stop": []}
    adaptive = "a.AdaptiveQSelector"
    agents = {
        "plain": agent_row(1),
        "plain_again": agent_row(2, sampling=usual),
        "plain_t1": agent_row(2, sampling={**usual, "temperature": 1.0}),
        "narrow": agent_row(4, selector=adaptive, selector_options={"margin": 0.1}),
        "wide": agent_row(8, selector=adaptive, selector_options={"margin": 0.5}),
    }

    legend = re.findall(r">([^<>]+)</text>", curve_plots(agents, usual)["reward_by_n"])

    lines = ["First", "First, temperature 1.0", "AdaptiveQ, margin 0.1", "AdaptiveQ, margin 0.5"]
    assert [text for text in legend if text.startswith(("First", "Adaptive"))] == lines


def search_row(num_candidates: int, **search: Any) -> dict[str, Any]:  # noqa: ANN401
    """A row of an agent that samples so many candidates per expansion before it acts."""
    settings = {"num_iterations": 3, "num_candidates": num_candidates, "eta": 2.0, **search}
    trials = {"class": "b.SearchTrials", "needs_scorer": False, "uses": "x", "search": settings}
    return agent_row(1, trials=trials)


def line_names(plot: str) -> list[str]:
    """The names of lines in a legend, those of several rows as one."""
    names: list[str] = []
    for text in re.findall(r">([^<>]+)</text>", plot):
        if text.startswith("First"):
            names.append(text)
        elif names and " " in text and not text.startswith("candidates"):
            names[-1] += f" {text}"
    return names


def test_agents_that_differ_in_the_options_of_their_trials_share_no_line() -> None:
    best = {"class": "b.BestOfTrials", "uses": "x", "needs_scorer": False}
    agents = {
        "uct": search_row(5),
        "uct_9": search_row(9),
        "puct": search_row(5, variant="puct"),
        "q_only": search_row(5, variant="q_only", num_iterations=12),
        "best_of_3": agent_row(1, trials={**best, "num_trials": 3}),
        "best_of_5": agent_row(1, trials={**best, "num_trials": 5}),
    }

    assert line_names(curve_plots(agents, {})["reward_by_n"]) == [
        "First + SearchTrials, num_iterations 3",
        "First + SearchTrials, num_iterations 3, variant puct",
        "First + SearchTrials, num_iterations 12, variant q_only",
        "First + BestOfTrials, num_trials 3",
        "First + BestOfTrials, num_trials 5",
    ]


def test_an_agent_that_searches_stands_at_the_candidates_of_an_expansion() -> None:
    assert "reward_by_n" in curve_plots({"a": search_row(5), "b": search_row(9)}, {})
    assert "reward_by_n" not in curve_plots({"a": search_row(5), "b": agent_row(5)}, {})


def test_reward_is_drawn_against_tokens_for_any_two_agents() -> None:
    plain, best = agent_row(1), agent_row(1, selector="a.QSelector")

    assert list(curve_plots({"plain": plain, "best": best}, {})) == ["reward_by_tokens"]
    several = {"plain": plain, "plain_2": agent_row(2)}
    assert list(curve_plots(several, {})) == ["reward_by_n", "reward_by_tokens"]
    assert curve_plots({"plain": plain, "failed": {"num_candidates": 1}}, {}) == {}


def test_an_adaptive_agent_stands_where_it_sampled() -> None:
    def adaptive(limit: int, mean: float) -> dict[str, Any]:
        options = {"selector": "a.AdaptiveQSelector", "candidates_per_decision": mean}
        return agent_row(limit, reward=0.21, **options)

    agents = {
        "plain": agent_row(1, reward=0.21),
        "plain_8": agent_row(8, reward=0.21),
        "adaptive": adaptive(8, 4.5),
    }

    by_n = curve_plots(agents, {})["reward_by_n"]

    # Markers of equal reward have equal heights; the marks of the axes have others.
    drawn = re.findall(r'<use [^>]*x="([0-9.]+)" y="([0-9.]+)"', by_n)
    heights = {y for _, y in drawn}
    [markers] = [
        x for x in ([float(x) for x, y in drawn if y == one] for one in heights) if len(x) == 3
    ]
    one, eight, between = markers
    assert between == pytest.approx((one + eight) / 2)
    assert "of adaptive agents the mean" in by_n
    assert "reward_by_n" not in curve_plots({"a": adaptive(8, 2.0), "b": adaptive(4, 2.0)}, {})
    assert "reward_by_n" in curve_plots({"a": adaptive(8, 2.5), "b": adaptive(4, 2.0)}, {})


def test_the_shipped_webshop_config_plays_what_its_curves_and_equal_cost_need() -> None:
    path = Path(__file__).parents[3] / "configs" / "predict_webshop.yaml"
    agents = yaml.safe_load(path.read_text("utf-8"))["data"]["init_args"]["agents"]
    settings = {
        name: {"selector": one["selector"]["class_path"], "num_candidates": one["num_candidates"]}
        for name, one in agents.items()
        if "num_candidates" in one
    }
    rows = {name: agent_row(**one) for name, one in settings.items()}

    assert "reward_by_n" in curve_plots(rows, {})
    # As measured on 200 goals: 932 tokens of prompts and 8.5 a candidate; Q's episodes are longer.
    cost = {
        name: {"prompt_tokens": 932.0, "generated_tokens": 8.5 * one["num_candidates"]}
        for name, one in settings.items()
    }
    cost["q_guided"] = {"prompt_tokens": 1140.0, "generated_tokens": 181.0}
    assert nearest_in_cost("q_guided", ["random_of_n"], settings, cost) == {
        "random_of_40": ["random_of_n", "random_of_40", "random_of_4"]
    }
    assert is_matched(cost_ratio(cost["q_guided"], cost["random_of_40"]))


def test_plots_mark_what_no_agent_can_know_as_tables_do() -> None:
    known = {"uses": "the true reward"}
    trials = {"trials": {"class": "b.BestOfTrials", "num_trials": 5}}
    agents = {
        "oracle": agent_row(2, selector="a.OracleSelector", **known),
        "best_of_5": agent_row(1, **trials, **known),
        "plain": agent_row(2),
    }
    difference = {"mean": 0.1, "low": 0.0, "high": 0.2, "tasks": 3}
    report = {"agents": agents, "differences": dict.fromkeys(["plain - oracle"], difference)}

    by_n = curve_plots(agents | {"plain_1": agent_row(1)}, {})["reward_by_n"]

    for text in ("Oracle †", "First + BestOfTrials †", "First"):
        assert f">{text}</text>" in by_n
    for text in ("oracle †", "best_of_5 †", "plain"):
        assert f">{text}</text>" in reward_plot(agents)
    assert ">plain - oracle †</text>" in difference_plot(report)
    for plot in (by_n, reward_plot(agents), difference_plot(report)):
        assert ">† uses the true reward</text>" in plot
    assert "†" not in reward_plot({"plain": agent_row(1)})


def test_plots_of_nothing_are_empty() -> None:
    empty: dict[str, Any] = {"plain": {"failures": 1}}

    assert reward_plot(empty) == ""
    assert difference_plot({"agents": empty, "differences": {}}) == ""
