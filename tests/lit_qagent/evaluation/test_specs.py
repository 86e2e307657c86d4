from pathlib import Path
from typing import Any

import pytest

from lit_qagent.agents.selection import AdaptiveQSelector, FirstSelector, OracleSelector, QSelector
from lit_qagent.agents.trials import BestOfTrials, Reflexion
from lit_qagent.core.errors import ConfigError, OverlapError
from lit_qagent.core.records import Sampling, Task
from lit_qagent.evaluation.cost import Prices
from lit_qagent.evaluation.lineage import check_overlap, describe_lineage
from lit_qagent.evaluation.specs import AgentSpec
from tests.toy_players import WordScorer, make_evaluation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"num_tasks": 0}}, "tasks.num_tasks must be >= 1, got 0"),
        ({"tasks": {"first_task": -1}}, "tasks.first_task must be >= 0, got -1"),
        ({"tasks": {"seeds": []}}, r"tasks.seeds must be different numbers, got \[\]"),
        ({"tasks": {"seeds": [1, 1]}}, r"tasks.seeds must be different numbers, got \[1, 1\]"),
        ({"play": {"concurrency": 0}}, "play.concurrency must be >= 1, got 0"),
        ({"play": {"treatment": "q_giuded"}}, "play.treatment: no agent 'q_giuded'; there are"),
        ({"play": {"controls": ["simple"]}}, "play.controls: no agent 'simple'; there are"),
        ({"play": {"controls": ["plain", "plain"]}}, "play.controls names 'plain' 2 times"),
        ({"play": {"controls": ["q_guided"]}}, "holds the treatment 'q_guided'; take it out"),
        ({"agents": {"a b": AgentSpec(selector=FirstSelector())}}, "the name 'a b' must be"),
        ({"agents": {}}, r"play.treatment: no agent 'q_guided'; there are \[\]"),
    ],
)
def test_a_bad_setting_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_evaluation(tmp_path, **changes)


def test_an_agent_needs_a_candidate() -> None:
    with pytest.raises(ConfigError, match="num_candidates must be >= 1 for FirstSelector, got 0"):
        AgentSpec(selector=FirstSelector(), num_candidates=0)


def test_an_adaptive_agent_needs_two_candidates() -> None:
    with pytest.raises(ConfigError, match="must be >= 2 for AdaptiveQSelector, got 1"):
        AgentSpec(selector=AdaptiveQSelector())


def test_more_tasks_than_there_are_is_refused(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path, tasks={"num_tasks": 10, "first_task": 7})

    with pytest.raises(ConfigError, match=r"tasks 7 to 16 of split 'test' .* toy has 16; lower"):
        evaluation.held_out_tasks()


def test_tasks_are_the_asked_for_part_of_the_split(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path, tasks={"num_tasks": 3, "first_task": 2})

    assert evaluation.held_out_tasks() == list(evaluation.environment.tasks("test")[2:5])


def test_controls_are_all_other_agents_unless_named(tmp_path: Path) -> None:
    assert make_evaluation(tmp_path).controls == ["plain", "random_of_n"]
    assert make_evaluation(tmp_path, play={"controls": ["plain"]}).controls == ["plain"]


def test_an_agent_that_needs_a_q_model_is_refused_without_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="agents q_guided need a Q-model; give a checkpoint"):
        make_evaluation(tmp_path).build_agents(None)


def test_agents_without_q_need_no_scorer(tmp_path: Path) -> None:
    plain = {"plain": AgentSpec(selector=FirstSelector())}
    evaluation = make_evaluation(tmp_path, agents=plain, play={"treatment": "plain"})

    assert evaluation.build_agents(None)["plain"].scorer is None


def test_an_agents_own_sampling_replaces_the_common_one(tmp_path: Path) -> None:
    greedy = AgentSpec(selector=FirstSelector(), sampling=Sampling(temperature=0))
    evaluation = make_evaluation(
        tmp_path, agents={"greedy": greedy, "q_guided": AgentSpec(selector=FirstSelector())}
    )

    agents = evaluation.build_agents(WordScorer())

    assert agents["greedy"].sampling.temperature == 0
    assert agents["q_guided"].sampling.temperature == 1


def test_settings_hold_what_decides_the_numbers(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path, play={"concurrency": 9})

    settings = evaluation.settings({"task_ids": ["a", "b"], "base_model": "tiny"})

    assert settings["environment"]["data_hash"] == evaluation.environment.data_hash()
    assert settings["agents"]["plain"] == {
        "selector": "lit_qagent.agents.selection.FirstSelector",
        "num_candidates": 1,
        "sampling": None,
    }
    assert settings["q_model"]["trained_tasks"] == 2
    assert settings["q_model"]["base_model"] == "tiny"
    assert "concurrency" not in str(settings)


def test_settings_say_what_an_agent_uses_and_how_often_it_tries(tmp_path: Path) -> None:
    agents = {
        "q_guided": AgentSpec(selector=QSelector(), trials=Reflexion(num_trials=2)),
        "bound": AgentSpec(selector=OracleSelector(), trials=BestOfTrials(3), num_candidates=2),
    }
    prices = Prices(prompt=1, generated=2)
    evaluation = make_evaluation(tmp_path, agents=agents, play={"prices": prices})

    settings = evaluation.settings({})

    assert settings["prices"] == {"prompt": 1, "generated": 2}
    assert settings["agents"]["q_guided"]["trials"] == {
        "class": "lit_qagent.agents.trials.Reflexion",
        "num_trials": 2,
        "num_notes": 3,
        "note_tokens": 96,
    }
    assert settings["agents"]["q_guided"]["uses"] == "the success of earlier trials"
    assert settings["agents"]["bound"]["uses"] == "the true reward"
    assert settings["agents"]["bound"]["selector_options"] == {"rollouts": 1}
    assert "prices" not in make_evaluation(tmp_path).settings({})


def test_the_lineage_hash_covers_the_tasks() -> None:
    one, other = describe_lineage({"task_ids": ["a"]}), describe_lineage({"task_ids": ["b"]})

    assert one["lineage_hash"] != other["lineage_hash"]
    assert "task_ids" not in one
    assert "trained_tasks" not in describe_lineage({})


def test_overlap_names_every_task_and_the_remedy() -> None:
    tasks = [Task(task_id=f"t{i}", instruction="", split="test") for i in range(6)]

    check_overlap(tasks, {"task_ids": ["other"]})
    with pytest.raises(OverlapError, match=r"^5 of 6 .*\(t1, t2, t3, t4, t5\); choose another"):
        check_overlap(tasks, {"task_ids": [f"t{i}" for i in range(1, 9)]})
