"""Tables and notes of a report, from its numbers to what its pages show."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.agents.selection import (
    AdaptiveQSelector,
    OracleSelector,
    QSelector,
    RandomSelector,
)
from lit_qagent.evaluation.cost import Prices
from lit_qagent.evaluation.episodes import PlayedEpisode
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.specs import AgentSpec
from lit_qagent.evaluation.tables import (
    agent_table,
    difference_table,
    failure_table,
    regret_note,
    value_name,
)
from tests.lit_qagent.evaluation.results import hand_made, make_folder, write_results
from tests.toy_players import WordScorer, make_episode, make_evaluation


def test_upper_bounds_prices_and_curves_are_shown_where_there_are_any(tmp_path: Path) -> None:
    agents = {
        "q_guided": AgentSpec(selector=QSelector(), num_candidates=4),
        "q_2": AgentSpec(selector=QSelector(), num_candidates=2),
        "oracle": AgentSpec(selector=OracleSelector(), num_candidates=4),
    }
    play = {"prices": Prices(prompt=1.0, generated=2.0)}
    EpisodeShard(make_evaluation(tmp_path, agents=agents, play=play)).play(WordScorer(), {})

    report = write_report(tmp_path)

    # Three decisions of 20 prompt and 4 x 3 generated tokens: 60 and 2 x 36 millionths.
    assert report["agents"]["q_guided"]["cost"]["dollars"] == pytest.approx(132e-6)
    assert report["agents"]["oracle"]["cost"]["environment_steps"] > 3
    assert "q_guided" in report["regret_by_depth"]
    assert "oracle" not in report["regret_by_depth"]
    page, text = ((tmp_path / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert page.count("<svg") == 4
    for shown in (page, text):
        assert "oracle: uses the true reward" in shown
        assert "oracle †" in shown
        assert "q_guided - oracle †" in shown
        assert "0.000132" in shown
    assert "true return = " in page


@pytest.mark.parametrize(
    ("rollouts", "said", "unsaid"),
    [
        (1, "mean true reward of k = 1 episode that", "both ways averaged"),
        (4, "mean true reward of k = 4 episodes that", "Biased upwards"),
    ],
)
def test_the_report_says_how_regret_was_measured(
    tmp_path: Path, rollouts: int, said: str, unsaid: str
) -> None:
    oracle = OracleSelector(rollouts=rollouts)
    agents = {
        "q_guided": AgentSpec(selector=QSelector(), num_candidates=4),
        "oracle": AgentSpec(selector=oracle, num_candidates=4),
        "oracle_of_2": AgentSpec(selector=oracle, num_candidates=2),
    }
    EpisodeShard(make_evaluation(tmp_path, agents=agents)).play(WordScorer(), {})

    report = write_report(tmp_path)

    measure = {"oracle": "oracle", "rollouts": rollouts, "cross_fitted": rollouts > 1}
    assert report["regret_measure"] == measure
    # The other oracle chose by the same rollouts.
    assert list(report["regret_by_depth"]) == ["q_guided"]
    for kind in ("md", "html"):
        text = (tmp_path / f"report.{kind}").read_text()
        assert said in text
        assert unsaid not in text


def test_rollouts_that_a_folder_does_not_keep_are_said_to_bias_its_regret(tmp_path: Path) -> None:
    agents = {
        "q_guided": AgentSpec(selector=QSelector(), num_candidates=4),
        "oracle": AgentSpec(selector=OracleSelector(rollouts=2), num_candidates=4),
    }
    EpisodeShard(make_evaluation(tmp_path, agents=agents)).play(WordScorer(), {})
    path = tmp_path / "trajectories.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["steps"] = [{k: v for k, v in one.items() if k != "returns"} for one in row["steps"]]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    report = write_report(tmp_path)

    assert report["regret_measure"]["cross_fitted"] is False
    note = regret_note(report)
    assert "Biased upwards: the 2 rollouts of each candidate" in note
    assert "does not keep the single rollouts" in note


def test_where_episodes_failed_every_agent_is_shown_with_failures_as_nothing_earned(
    tmp_path: Path,
) -> None:
    report = write_report(make_folder(tmp_path, hand_made()))

    # plain: task a .25, task b mean(0, failed) = 0; two of two seeds of b lack a metric.
    assert report["agents"]["plain"]["failures_as_zero"]["reward"] == {
        "mean": 0.125, "low": 0.0, "high": 0.25
    }  # fmt: skip
    rows = {row[0]: row for row in failure_table(report)}
    assert rows["plain"][1:3] == ["0.125 [0.000, 0.250]", "0.000 [0.000, 0.000]"]
    assert (rows["plain"][-1], rows["random_of_n"][-1]) == ("1 of 4", "0 of 4")
    assert rows["q_guided"][1] == "0.875 [0.750, 1.000]"
    for name in ("report.md", "report.html"):
        assert "failed episodes counted as reward 0" in (tmp_path / name).read_text()


def test_where_no_episode_failed_nothing_is_said_of_it(tmp_path: Path) -> None:
    report = write_report(make_folder(tmp_path, [e for e in hand_made() if e.failure is None]))

    assert failure_table(report) == []
    assert "failures_as_zero" not in report["agents"]["plain"]
    for name in ("report.md", "report.html"):
        assert "counted as reward 0" not in (tmp_path / name).read_text()


def test_an_agent_without_a_finished_episode_is_shown_as_such(tmp_path: Path) -> None:
    failed = make_episode("q_guided", "a", steps=[], failure="PolicyFailure: no answer")
    report = write_report(make_folder(tmp_path, [failed, make_episode("plain", "a", reward=1.0)]))

    assert difference_table(report)[1][1:] == [
        "-",
        "nothing to compare",
        "-",
        "-",
        "-",
        "-",
        "0",
        "1",
    ]
    assert agent_table(report)[3] == ["q_guided", "4", "-", "-", "-", "-", "-", "0", "1"]
    assert "1.000 (no interval)" in agent_table(report)[1]


def test_an_adaptive_agent_is_shown_with_what_it_sampled(tmp_path: Path) -> None:
    agents = {
        "q_guided": AgentSpec(selector=AdaptiveQSelector(), num_candidates=8),
        "q_late": AgentSpec(selector=AdaptiveQSelector(), num_candidates=4),
        "random_of_n": AgentSpec(selector=RandomSelector(), num_candidates=8),
    }
    evaluation = make_evaluation(tmp_path, agents=agents, tasks={"num_tasks": 2})
    [go] = make_episode("", "").steps[:1]

    def played(agent: str, task: str, *counts: int, failure: str | None = None) -> PlayedEpisode:
        steps = [replace(go, candidates=["go"] * count) for count in counts]
        return make_episode(agent, task, steps=steps, failure=failure)

    episodes = [
        played("q_guided", "a", 2, 2, 3),
        played("q_guided", "b", 8),
        played("q_guided", "c", 8, 8, failure="PolicyFailure: no answer"),
        played("q_late", "a", failure="PolicyFailure: no answer"),
        played("random_of_n", "a", 8),
    ]

    report = write_report(write_results(evaluation, episodes))

    # Four decisions of finished episodes with 15 candidates.
    assert report["agents"]["q_guided"]["candidates_per_decision"] == 3.75
    assert "candidates_per_decision" not in report["agents"]["random_of_n"]
    shown = {row[0]: row[1] for row in agent_table(report)}
    assert shown == {
        "agent": "n", "q_guided": "≤ 8, mean 3.8", "q_late": "≤ 4", "random_of_n": "8"
    }  # fmt: skip
    for kind in ("md", "html"):
        assert "≤ 8, mean 3.8" in (tmp_path / f"report.{kind}").read_text("utf-8")


@pytest.mark.parametrize(
    ("selector", "alone", "after_search"),
    [
        ("QSelector", "Q", "value of the search, behind it Q"),
        ("OracleSelector", "true return", "value of the search, behind it true return"),
        ("FirstSelector", "Q", "value of the search"),
    ],
)
def test_values_are_called_what_they_are(selector: str, alone: str, after_search: str) -> None:
    row: dict[str, Any] = {"selector": f"a.{selector}"}

    assert value_name(row) == alone
    assert value_name(row | {"trials": {"class": "b.BestOfTrials"}}) == alone
    assert value_name(row | {"trials": {"class": "b.SearchTrials"}}) == after_search
