"""Which controls a report compares with, and when it says better."""

from pathlib import Path

from lit_qagent.agents.selection import QSelector, RandomSelector
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.specs import AgentSpec
from tests.lit_qagent.evaluation.results import hand_made, make_folder, write_results
from tests.toy_players import make_evaluation, with_rewards


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
    episodes = [
        episode
        for name, reward in rewards.items()
        for episode in with_rewards(
            name, {"a": [reward], "b": [reward]}, prompt_tokens=tokens[name]
        )
    ]

    report = write_report(write_results(evaluation, episodes))

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
