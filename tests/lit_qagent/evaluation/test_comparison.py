from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lit_qagent.core.errors import ConfigError, StoreError
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.evaluation.comparison import (
    Run,
    compare_runs,
    comparison_table,
    comparison_text,
    pair_agents,
    read_run,
)
from lit_qagent.policies.scripted import ScriptedPolicy
from tests.lit_qagent.evaluation.results import write_results
from tests.toy_players import make_episode, make_evaluation, with_rewards

Rewards = Mapping[str, Mapping[str, Sequence[float]]]

PLAIN = {"plain": {"a": [0.0, 0.5], "b": [0.0, 0.0]}}
BETTER = {"plain": {"a": [1.0, 1.0], "b": [0.5, 0.5]}, "q_guided": {"a": [1.0], "b": [1.0]}}


def make_run(folder: Path, rewards: Rewards, **changes: object) -> Run:
    """Write a results folder by hand and read it."""
    episodes = [
        episode
        for agent, some in rewards.items()
        for episode in with_rewards(agent, some, metrics={"em": 1.0})
    ]
    return read_run(write_results(make_evaluation(folder, **changes), episodes))


def test_run_b_minus_run_a_by_hand(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", PLAIN)
    b = make_run(tmp_path / "b", BETTER, policy=ScriptedPolicy())

    result = compare_runs(a, b, [("plain", "plain"), ("plain", "q_guided")])

    row = result["agents"]["plain - plain"]
    # Task a: mean(1, .5) = .75; task b: .5.
    assert (row["mean"], row["low"], row["high"]) == (0.625, 0.5, 0.75)
    assert (row["a"]["reward"], row["b"]["reward"]) == (0.125, 0.75)
    assert (row["p_value"], row["p_holm"]) == (0.5, 1.0)
    assert row["verdict"] == "no difference shown"
    assert row["others"]["em"]["mean"] == 0.0
    # Only seed 0 of both tasks: 1 and 1; seed 1 of A has no partner.
    other = result["agents"]["q_guided - plain"]
    assert (other["mean"], other["tasks"], other["excluded_episodes"]) == (1.0, 2, 2)
    assert result["seeds"] == [0, 1]
    assert any(line.startswith("policy.policy") for line in result["settings_that_differ"])


def test_the_table_and_the_text_say_the_same(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", PLAIN), make_run(tmp_path / "b", BETTER)

    result = compare_runs(a, b, [("plain", "plain")])

    rows = comparison_table(result)
    assert [row[1] for row in rows] == ["score", "reward", "success", "em"]
    assert rows[1][2:6] == ["0.125", "0.750", "+0.625 [+0.500, +0.750]", "no difference shown"]
    text = comparison_text(result)
    assert f"| {' | '.join(rows[1])} |" in text
    assert "- none" in text


def test_agents_of_equal_name_are_paired_unless_named(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", PLAIN), make_run(tmp_path / "b", BETTER)

    everyone = [(name, name) for name in ("plain", "random_of_n", "q_guided")]
    assert pair_agents(a, b) == everyone
    assert pair_agents(a, b, "plain") == [("plain", "plain")]
    assert pair_agents(a, b, "plain", "q_guided") == [("plain", "q_guided")]
    with pytest.raises(ConfigError, match="has no agent 'best'; there are"):
        pair_agents(a, b, "plain", "best")


def test_runs_without_a_common_agent_are_refused(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", PLAIN), make_run(tmp_path / "b", BETTER)
    b.settings["agents"] = {"other": b.settings["agents"]["plain"]}

    with pytest.raises(ConfigError, match=r"share no agent: .* name one of each with --agent_a"):
        pair_agents(a, b)


def test_an_agent_that_shares_no_episode_has_nothing_to_compare(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", PLAIN), make_run(tmp_path / "b", BETTER)

    result = compare_runs(a, b, [("q_guided", "q_guided")])

    assert comparison_table(result)[1][5] == "nothing to compare"
    assert "nothing to compare" in comparison_text(result)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": ToyWorld(max_steps=4)}, "different worlds: max_steps: 5 there, 4 now"),
        ({"tasks": {"first_task": 1}}, r"other tasks: 1 only in .*a' \(toy-\S+\); 1 only in"),
        ({"tasks": {"seeds": [7]}}, r"share no seed: \[0, 1\] and \[7\]"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_the_difference(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    a = make_run(tmp_path / "a", PLAIN)
    b = make_run(tmp_path / "b", BETTER, **changes)

    with pytest.raises(StoreError, match=message):
        compare_runs(a, b, [("plain", "plain")])


def test_a_folder_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no episodes; play some first"):
        make_run(tmp_path, {})


def test_what_an_agent_uses_is_said(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", PLAIN), make_run(tmp_path / "b", BETTER)
    b.settings["agents"]["plain"]["uses"] = "the true reward"

    result = compare_runs(a, b, [("plain", "plain")])

    assert comparison_table(result)[1][0] == "plain - plain †"
    assert "† plain of run B uses the true reward." in comparison_text(result)


def test_failed_episodes_are_left_out(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", PLAIN), make_run(tmp_path / "b", BETTER)
    b.episodes.append(make_episode("plain", "c", steps=[], failure="PolicyFailure: x"))

    assert compare_runs(a, b, [("plain", "plain")])["agents"]["plain - plain"]["tasks"] == 2
