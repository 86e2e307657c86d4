import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from lit_qagent.agents.selection import (
    AdaptiveQSelector,
    OracleSelector,
    QSelector,
    RandomSelector,
)
from lit_qagent.core import manifest
from lit_qagent.core.errors import StoreError
from lit_qagent.evaluation.cost import Prices
from lit_qagent.evaluation.episodes import EpisodeLog, PlayedEpisode
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.sessions import Session
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.specs import AgentSpec
from lit_qagent.evaluation.tables import (
    agent_table,
    difference_table,
    failure_table,
    regret_note,
)
from tests.toy_players import WordScorer, make_episode, make_evaluation, with_rewards

EVIL = "<script>alert('x')</script> & | `"


def make_folder(
    folder: Path,
    episodes: Iterable[PlayedEpisode],
    play: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a results folder of three agents by hand."""
    evaluation = make_evaluation(folder, tasks={"num_tasks": 2}, play=play)
    settings = evaluation.settings({"task_ids": ["x", "y", "z"], "base_model": EVIL})
    manifest.claim(folder / "manifest.json", settings, "Results folder")
    with EpisodeLog(folder / "trajectories.jsonl") as log:
        for episode in episodes:
            log.append(episode)
    return folder


def hand_made() -> list[PlayedEpisode]:
    one_step = make_episode("", "").steps[:1]
    failed = make_episode("plain", "b", 1, steps=[], failure="PolicyFailure: no answer")
    return [
        *with_rewards("plain", {"a": [0.0, 0.5], "b": [0.0]}, prompt_tokens=40, requests=1),
        failed,
        *with_rewards("random_of_n", {"a": [1.0, 1.0], "b": [1.0, 1.0]}, metrics={"em": 1.0}),
        *with_rewards("q_guided", {"a": [1.0, 1.0], "b": [0.5]}, first_observation=EVIL),
        make_episode("q_guided", "b", 1, reward=1.0, success=True, steps=one_step),
    ]


def test_report_json_holds_the_numbers_derived_by_hand(tmp_path: Path) -> None:
    report = write_report(make_folder(tmp_path, hand_made()))

    assert report == json.loads((tmp_path / "report.json").read_text())
    assert (report["tasks"], report["trained_tasks"], report["seeds"]) == (2, 3, [0, 1])
    assert report["episodes"] == {"planned": 12, "finished": 11, "failed": 1, "not_played": 0}
    # plain: task a mean(0, .5) = .25, task b 0; q_guided: task a 1, task b mean(.5, 1) = .75.
    plain, guided = report["agents"]["plain"], report["agents"]["q_guided"]
    assert (plain["reward"], plain["episodes"], plain["failures"]) == (0.125, 3, 1)
    assert plain["intervals"]["reward"] == {"low": 0.0, "high": 0.25}
    assert plain["tokens"] == 40
    # Task a 2 steps, task b mean(2, 1); invalid: task a 1/2, task b mean(1/2, 0).
    assert (guided["reward"], guided["steps"], guided["invalid_rate"]) == (0.875, 1.75, 0.375)
    # Both finished a/0, a/1 and b/0: task a mean(1, .5) = .75, task b .5.
    difference = report["differences"]["q_guided - plain"]
    assert (difference["mean"], difference["low"], difference["high"]) == (0.625, 0.5, 0.75)
    assert (difference["tasks"], difference["excluded_episodes"]) == (2, 1)
    # Two tasks show nothing, whatever their interval.
    assert difference["verdict"] == "no difference shown"
    other = report["differences"]["q_guided - random_of_n"]
    assert (other["mean"], other["verdict"]) == (-0.125, "no difference shown")
    em = {"mean": -1.0, "low": -1.0, "high": -1.0, "verdict": "no difference shown"}
    assert other["others"]["em"] == em


def test_a_try_that_failed_is_paid_for_though_a_later_one_stands_for_it(tmp_path: Path) -> None:
    spent = {"requests": 3, "prompt_tokens": 60, "generated_tokens": 9}
    failed = make_episode("plain", "a", steps=[], failure="PolicyFailure: no answer", **spent)
    again = make_episode("plain", "a", requests=4, prompt_tokens=80, generated_tokens=12)

    report = write_report(make_folder(tmp_path, [failed, again]))

    assert report["episodes"]["failed"] == 0
    assert (report["requests"], report["prompt_tokens"], report["generated_tokens"]) == (7, 140, 21)
    # What an episode costs is that of one that was played to its end.
    assert report["agents"]["plain"]["cost"]["requests"] == 4


def test_the_head_says_the_dollars_of_all_tries(tmp_path: Path) -> None:
    spent = {"requests": 3, "prompt_tokens": 600_000, "generated_tokens": 90_000}
    failed = make_episode("plain", "a", steps=[], failure="PolicyFailure: no answer", **spent)
    again = make_episode("plain", "a", requests=4, prompt_tokens=800_000, generated_tokens=110_000)
    lost = make_episode("q_guided", "b", steps=[], failure="PolicyFailure: x", prompt_tokens=50_000)
    play = {"prices": Prices(prompt=2.0, generated=10.0)}

    report = write_report(make_folder(tmp_path, [failed, again, lost], play))

    # 1.45 million prompt tokens at 2 and 0.2 million generated ones at 10 dollars per million.
    assert report["dollars"] == pytest.approx(2.90 + 2.00)
    # A finished episode costs 0.8 million at 2 and 0.11 million at 10.
    assert report["agents"]["plain"]["cost"]["dollars"] == pytest.approx(1.60 + 1.10)
    shown = (
        "0 s, 7 requests, 1450000 prompt and 200000 generated tokens, 4.90 dollars, "
        "peak resident memory 0.0 GB."
    )
    assert f"- **Cost**: {shown}" in (tmp_path / "report.md").read_text()
    assert f"<strong>Cost:</strong> {shown}" in (tmp_path / "report.html").read_text()


def test_few_dollars_are_not_rounded_to_none(tmp_path: Path) -> None:
    play = {"prices": Prices(prompt=1.0, generated=2.0)}
    episode = make_episode("plain", "a", prompt_tokens=40, generated_tokens=46)

    write_report(make_folder(tmp_path, [episode], play))

    assert "generated tokens, 0.000132 dollars, peak" in (tmp_path / "report.md").read_text()


def test_without_prices_no_dollars_are_said(tmp_path: Path) -> None:
    assert "dollars" not in write_report(make_folder(tmp_path, hand_made()))
    assert "dollars" not in (tmp_path / "report.md").read_text()


def test_a_session_that_never_closed_makes_the_cost_a_least(tmp_path: Path) -> None:
    make_folder(tmp_path, hand_made())
    readings = iter([5.0, 5.0, 47.0])
    session = Session(tmp_path / "sessions.jsonl", cut_bytes=0, clock=lambda: next(readings))
    session.__enter__()
    session.count(hand_made()[0])

    report = write_report(tmp_path)

    assert (report["seconds"], report["cut_sessions"]) == (42.0, 1)
    for kind in ("md", "html"):
        text = (tmp_path / f"report.{kind}").read_text()
        assert "at least 42 s, 3 requests, 120 prompt and 0 generated tokens" in text
        assert "killed, interrupted or are not over: 1; what their unfinished episodes" in text


def test_closed_sessions_are_all_that_was_spent(tmp_path: Path) -> None:
    make_folder(tmp_path, hand_made())
    readings = iter([5.0, 5.0, 47.0])
    with Session(tmp_path / "sessions.jsonl", cut_bytes=0, clock=lambda: next(readings)):
        pass

    report = write_report(tmp_path)

    assert (report["seconds"], report["cut_sessions"]) == (42.0, 0)
    assert "**Cost**: 42 s, 3 requests" in (tmp_path / "report.md").read_text()


def test_report_json_holds_tests_costs_and_ends(tmp_path: Path) -> None:
    report = write_report(make_folder(tmp_path, hand_made()))

    # Per task .75 and .5: of the four ways to sign them two are as far from zero.
    difference = report["differences"]["q_guided - plain"]
    assert (difference["p_value"], difference["p_holm"]) == (0.5, 1.0)
    assert difference["tests"]["reward"]["p_value"] == 0.5
    # 2.8016 standard errors; those are .25 / sqrt(2) / sqrt(2).
    assert difference["detectable"] == pytest.approx(2.8016 * 0.125, abs=1e-4)
    assert (difference["cost_ratio"], difference["cost_matched"]) == (0.0, False)
    plain = report["agents"]["plain"]
    assert (plain["cost"]["requests"], plain["cost"]["prompt_tokens"]) == (1.0, 40.0)
    assert "dollars" not in plain["cost"]
    assert sum(plain["outcomes"].values()) == 4
    assert plain["outcomes"]["policy failure"] == 1
    assert [row["decisions"] for row in report["by_depth"]["q_guided"]] == [4, 3]
    assert report["regret_by_depth"] == {}


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


def test_every_link_of_the_page_leads_to_an_example(tmp_path: Path) -> None:
    write_report(make_folder(tmp_path, hand_made()))

    page = (tmp_path / "report.html").read_text()
    targets = re.findall(r'href="#([^"]+)"', page)
    assert "example-plain-policy-failure" in targets
    assert set(targets) <= set(re.findall(r'id="([^"]+)"', page))


def test_report_json_says_what_made_the_numbers(tmp_path: Path) -> None:
    EpisodeShard(make_evaluation(tmp_path)).play(WordScorer(), {"task_ids": []})

    report = write_report(tmp_path)

    assert report["environment"]["name"] == "toy"
    assert report["policy"] == {"name": "words", "temperament": "calm"}
    assert report["prompt"]["constrain"] is False
    assert set(report["agents"]) == {"plain", "random_of_n", "q_guided"}
    assert {"python", "torch", "lightning", "transformers"} <= set(report["versions"])
    assert report["hashes"]["environment_data"] == report["environment"]["data_hash"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in report["hashes"].values())
    assert report["seconds"] > 0
    assert report["peak_rss_gb"] > 0
    assert report["generated_tokens"] == 3 * 3 * (1 + 4 + 4) * 8


def test_the_same_folder_gives_the_same_report(tmp_path: Path) -> None:
    make_folder(tmp_path, hand_made())
    write_report(tmp_path)
    first = (tmp_path / "report.json").read_bytes(), (tmp_path / "report.html").read_bytes()

    write_report(tmp_path)

    assert first == (
        (tmp_path / "report.json").read_bytes(), (tmp_path / "report.html").read_bytes()
    )  # fmt: skip


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


def test_the_control_nearest_in_cost_is_named_and_compared(tmp_path: Path) -> None:
    agents = {
        "q_guided": AgentSpec(selector=QSelector(), num_candidates=4),
        "random_of_4": AgentSpec(selector=RandomSelector(), num_candidates=4),
        "random_of_9": AgentSpec(selector=RandomSelector(), num_candidates=9),
    }
    # The control that was asked for costs half as much; another of its rule costs about as much.
    tokens = {"q_guided": 120, "random_of_4": 60, "random_of_9": 115}
    rewards = {"q_guided": 1.0, "random_of_4": 0.0, "random_of_9": 0.5}
    play = {"controls": ["random_of_4"]}
    evaluation = make_evaluation(tmp_path, agents=agents, play=play, tasks={"num_tasks": 2})
    manifest.claim(tmp_path / "manifest.json", evaluation.settings({}), "Results folder")
    with EpisodeLog(tmp_path / "trajectories.jsonl") as log:
        for name, reward in rewards.items():
            some = {"a": [reward], "b": [reward]}
            for episode in with_rewards(name, some, prompt_tokens=tokens[name]):
                log.append(episode)

    report = write_report(tmp_path)

    assert list(report["differences"]) == ["q_guided - random_of_4"]
    [(name, row)] = report["differences_at_nearest_cost"].items()
    assert name == "q_guided - random_of_9"
    assert (row["mean"], row["cost_matched"]) == (0.5, True)
    assert row["variants"] == ["random_of_4", "random_of_9"]
    # Each is one of two comparisons in this report.
    assert (row["p_value"], row["p_holm"]) == (0.5, 1.0)
    for kind in ("md", "html"):
        text = (tmp_path / f"report.{kind}").read_text()
        assert "random_of_9 (of random_of_4, random_of_9)" in text


def test_a_verdict_follows_the_p_value_corrected_for_the_number_of_controls(
    tmp_path: Path,
) -> None:
    tasks = [f"t{number}" for number in range(6)]
    episodes = [
        *with_rewards("q_guided", {task: [0.3 + i / 100] for i, task in enumerate(tasks)}),
        *with_rewards("plain", {task: [0.0] for task in tasks}),
        *with_rewards("random_of_n", {task: [0.1] for task in tasks}),
    ]

    both = write_report(make_folder(tmp_path / "both", episodes))["differences"]
    one = write_report(make_folder(tmp_path / "one", episodes, {"controls": ["plain"]}))

    # Two of the 64 ways to sign six tasks are as far from zero: p is .031 alone, .0625 of two.
    shown = [(row["p_value"], row["p_holm"], row["verdict"]) for row in both.values()]
    assert shown == [(0.03125, 0.0625, "no difference shown")] * 2
    row = one["differences"]["q_guided - plain"]
    assert (row["p_holm"], row["verdict"]) == (0.03125, "better")
    assert "q_guided - plain: no difference" in (tmp_path / "both" / "report.html").read_text()


def test_without_variants_of_a_control_there_is_no_nearest(tmp_path: Path) -> None:
    assert write_report(make_folder(tmp_path, hand_made()))["differences_at_nearest_cost"] == {}
    assert "nearest in cost" not in (tmp_path / "report.html").read_text()


def test_html_is_one_file_with_every_text_escaped(tmp_path: Path) -> None:
    write_report(make_folder(tmp_path, hand_made()))

    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert page.count("<svg") == 3
    assert "<h2>Reward against tokens</h2>" in page
    assert "Q = 0.5000" in page
    assert "q_guided - plain: no difference shown" in page
    assert "Not complete:" in page


def test_markdown_has_the_tables_and_the_honest_header(tmp_path: Path) -> None:
    write_report(make_folder(tmp_path, hand_made()))

    text = (tmp_path / "report.md").read_text()
    assert "| plain | 1 | 0.125 [0.000, 0.250] |" in text
    row = "+0.625 [+0.500, +0.750] | no difference shown | 1.000 | 0.500 | 0.350"
    assert f"| q_guided - plain | {row} |" in text
    assert "leaves out zero and that the corrected p is at most 0.05" in text
    assert "free text, without thoughts" in text
    assert "trained on 3 tasks, none of them among these" in text
    assert "11 of 12 episodes finished, 1 failed, 0 not played" in text


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
    manifest.claim(tmp_path / "manifest.json", evaluation.settings({}), "Results folder")
    [go] = make_episode("", "").steps[:1]

    def played(agent: str, task: str, *counts: int, failure: str | None = None) -> PlayedEpisode:
        steps = [replace(go, candidates=["go"] * count) for count in counts]
        return make_episode(agent, task, steps=steps, failure=failure)

    with EpisodeLog(tmp_path / "trajectories.jsonl") as log:
        log.append(played("q_guided", "a", 2, 2, 3))
        log.append(played("q_guided", "b", 8))
        log.append(played("q_guided", "c", 8, 8, failure="PolicyFailure: no answer"))
        log.append(played("q_late", "a", failure="PolicyFailure: no answer"))
        log.append(played("random_of_n", "a", 8))

    report = write_report(tmp_path)

    # Four decisions of finished episodes with 15 candidates.
    assert report["agents"]["q_guided"]["candidates_per_decision"] == 3.75
    assert "candidates_per_decision" not in report["agents"]["random_of_n"]
    shown = {row[0]: row[1] for row in agent_table(report)}
    assert shown == {
        "agent": "n", "q_guided": "≤ 8, mean 3.8", "q_late": "≤ 4", "random_of_n": "8"
    }  # fmt: skip
    for kind in ("md", "html"):
        assert "≤ 8, mean 3.8" in (tmp_path / f"report.{kind}").read_text("utf-8")


def test_unknown_training_tasks_are_said(tmp_path: Path) -> None:
    EpisodeShard(make_evaluation(tmp_path)).play(WordScorer(), {})

    assert write_report(tmp_path)["trained_tasks"] is None
    assert "no overlap check was possible" in (tmp_path / "report.html").read_text()


def test_a_folder_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no episodes; play some first"):
        write_report(make_folder(tmp_path, []))


def test_a_folder_of_another_schema_is_refused(tmp_path: Path) -> None:
    manifest.write_json(tmp_path / "manifest.json", {"schema_version": 0})

    with pytest.raises(StoreError, match="has schema 0, this version reads 1; play again"):
        write_report(tmp_path)
