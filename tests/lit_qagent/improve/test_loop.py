import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_qagent.core.errors import ConfigError, PolicyFailure, StoreError
from lit_qagent.evaluation.cost import Prices
from lit_qagent.improve.loop import run_loop
from lit_qagent.improve.record import Record, lock_folder
from lit_qagent.improve.spec import (
    Acceptance,
    Improve,
    LoopBudget,
    ValidationTasks,
)

LOW, HIGH, HIGHER = [0.2, 0.3] * 6, [0.5, 0.6] * 6, [0.8, 0.9] * 6
STAGES = ["collect", "pairs", "fit", "predict"]


def script(spec: Improve, **rounds: dict[str, Any]) -> None:
    """Say what each round's agents earn."""
    spec.folder.mkdir(exist_ok=True)
    (spec.folder / "script.json").write_text(json.dumps(rounds))


def run(spec: Improve) -> Record:
    return run_loop(spec, say=lambda text: None)


def calls(spec: Improve) -> list[tuple[str, str]]:
    lines = (spec.folder / "calls.jsonl").read_text().splitlines()
    return [(row["round"], row["stage"]) for row in map(json.loads, lines)]


def saved(spec: Improve) -> dict[str, Any]:
    """Return the record on the disk."""
    record: dict[str, Any] = json.loads((spec.folder / "improve.json").read_text())
    return record


def config(spec: Improve, round_number: int, name: str) -> dict[str, Any]:
    text = (spec.folder / f"round_{round_number}" / f"{name}.yaml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_a_model_is_accepted_only_if_the_interval_says_better(spec: Improve) -> None:
    script(
        spec,
        round_1={"q_guided": HIGH, "random_of_n": LOW},  # beats the control: accepted
        round_2={"q_guided": HIGH[::-1], "random_of_n": LOW},  # no better than round 1: refused
        round_3={"q_guided": HIGHER, "random_of_n": LOW},  # beats round 1: accepted
    )

    record = run(spec)

    assert [row["accepted"] for row in record.rounds] == [True, False, True]
    assert [row["guided_by"] for row in record.rounds] == [None, 1, 1]
    assert record.accepted == 3
    assert record.checkpoint == str(spec.folder / "round_3" / "checkpoint")
    assert (record.status, record.why) == ("finished", "3 rounds")
    first, second, third = record.rounds
    assert first["difference"]["mean"] == pytest.approx(0.3)
    assert "random_of_n" in first["compared_with"]
    assert second["why"] == "refused: the 95 % interval [-0.050, +0.050] holds zero"
    assert third["compared_with"] == f"q_guided of {spec.folder / 'round_1' / 'predict'}"
    assert third["difference"]["low"] > 0
    assert third["reward_before"] == pytest.approx(0.55)
    assert saved(spec)["rounds"] == record.rounds


def decision(spec: Improve, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what a single round comes to."""
    script(spec, round_1={"q_guided": HIGH, "random_of_n": LOW, **changes})
    [row] = run(replace(spec, budget=LoopBudget(rounds=1))).rounds
    return row


def test_a_model_whose_episodes_failed_is_not_accepted_for_the_rest(spec: Improve) -> None:
    row = decision(spec, failed={"q_guided": ["task-3"], "random_of_n": ["task-3", "task-4"]})

    assert row["accepted"] is False
    assert row["why"].startswith(
        "refused: episodes are missing on 2 of 12 tasks (the new model's on 1), and at most 5 %"
    )
    assert row["difference"]["low"] > 0
    assert (row["tasks"], row["left_out"], row["tasks_missing"]) == (10, 1, 2)


def test_a_small_share_of_missing_tasks_may_be_allowed(spec: Improve) -> None:
    lenient = replace(spec, accept=Acceptance(max_missing=0.1))

    row = decision(lenient, failed={"q_guided": ["task-3"]})

    assert row["why"] == "accepted: the 95 % interval [+0.300, +0.300] lies above zero"
    assert row["tasks"] == 11


@pytest.mark.parametrize("gone", ["q_guided", "random_of_n"])
def test_episodes_that_the_policy_left_unanswered_are_played_again(
    spec: Improve, gone: str
) -> None:
    unanswered = {gone: ["task-10", "task-11"]}
    rewards = {"q_guided": HIGH, "random_of_n": LOW}
    script(spec, round_1={**rewards, "unanswered": unanswered})
    spec = replace(spec, budget=LoopBudget(rounds=1))

    with pytest.raises(PolicyFailure) as caught:
        run(spec)
    with pytest.raises(PolicyFailure):  # it may be away for longer
        run(spec)

    message = str(caught.value)
    assert message.startswith("the policy gave no answer in 2 episodes, the last: PolicyFailure: g")
    assert "missing on 2 of 12 validation tasks, more than 5 %" in message
    assert "the same command plays them again" in message
    assert saved(spec)["status"] == "stopped"
    assert saved(spec)["why"].startswith("round 1: the policy gave no answer in 2 episodes")
    assert saved(spec)["rounds"] == []
    script(spec, round_1=rewards)  # it is back
    [row] = run(spec).rounds
    assert row["accepted"] is True
    assert calls(spec) == [("round_1", name) for name in [*STAGES, "predict", "predict"]]


def test_episodes_without_an_answer_count_as_missing_where_that_is_asked_for(
    spec: Improve,
) -> None:
    unanswered = {"q_guided": ["task-10", "task-11"]}
    with pytest.raises(PolicyFailure, match=r"--accept.wait_for_answers false"):
        decision(spec, unanswered=unanswered)

    # The same folder goes on.
    row = decision(replace(spec, accept=Acceptance(wait_for_answers=False)), unanswered=unanswered)

    assert row["why"].startswith("refused: episodes are missing on 2 of 12 tasks")


def test_no_answer_is_waited_for_that_would_change_nothing(spec: Improve) -> None:
    failed = {"q_guided": ["task-3"]}
    row = decision(spec, failed=failed, unanswered={"q_guided": ["task-10"]})
    assert row["why"].startswith("refused: episodes are missing on 2 of 12 tasks")


def test_few_tasks_decide_nothing(spec: Improve) -> None:
    lenient = replace(spec, accept=Acceptance(max_missing=0.5))

    row = decision(lenient, failed={"q_guided": ["task-3", "task-4", "task-5"]})

    assert row["why"] == "refused: 9 tasks are compared, fewer than 10"
    with pytest.raises(ConfigError, match=r"num_tasks is 9 and accept.min_tasks 10, so no Q-model"):
        replace(spec, validation=ValidationTasks(num_tasks=9))


def test_the_permutation_test_has_to_agree(spec: Improve) -> None:
    # Four tasks of twelve are better: few resamples have none of them, but of the 16 ways to sign
    # their differences two are as far from zero.
    better = [one + 0.3 * (number < 4) for number, one in enumerate(LOW)]

    row = decision(spec, q_guided=better)

    assert row["accepted"] is False
    assert row["why"] == (
        "refused: the 95 % interval [+0.025, +0.175] lies above zero, but the permutation test's p "
        "is 0.125, above 0.05"
    )


@pytest.mark.parametrize("changes", [{"min_tasks": 1}, {"max_missing": 1.0}, {"max_missing": -0.1}])
def test_an_acceptance_that_asks_for_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"accept.{next(iter(changes))} must be"):
        Acceptance(**changes)


def test_a_loop_from_before_there_was_an_acceptance_goes_on(spec: Improve) -> None:
    assert "accept" not in spec.settings()
    stricter = replace(spec, accept=Acceptance(min_tasks=12)).settings()
    assert stricter["accept"] == {"min_tasks": 12, "max_missing": 0.05}


def test_a_refused_round_leaves_the_search_as_it_was(spec: Improve) -> None:
    script(
        spec,
        round_1={"q_guided": LOW, "random_of_n": HIGH},  # worse than the control
        round_2={"q_guided": HIGH, "random_of_n": LOW},
        round_3={"q_guided": LOW, "random_of_n": LOW},
    )

    record = run(spec)

    assert [row["accepted"] for row in record.rounds] == [False, True, False]
    assert "lies below zero" in record.rounds[0]["why"]
    assert record.rounds[1]["compared_with"].startswith("random_of_n of")
    assert "scorer" not in config(spec, 2, "collect")
    third = config(spec, 3, "collect")
    assert third["search"] == {"num_iterations": 4, "variant": "puct"}
    scorer = third["scorer"]["init_args"]
    assert scorer["checkpoint"] == str(spec.folder / "round_2" / "checkpoint")
    assert scorer["backbone"] == {"name": "tiny"}


def test_every_round_searches_new_tasks_and_trains_on_all_pairs(spec: Improve) -> None:
    rewards = {"q_guided": LOW, "random_of_n": LOW}
    script(spec, round_1=rewards, round_2=rewards, round_3=rewards)

    record = run(spec)

    asked = [config(spec, number, "collect") for number in (1, 2, 3)]
    assert [(one["first_task"], one["num_tasks"]) for one in asked] == [(2, 4), (6, 4), (10, 4)]
    assert [one["seed"] for one in asked] == [5, 6, 7]
    assert record.rounds[2]["validation"] == {"split": "valid", "tasks": [0, 11], "seeds": [0]}
    assert [row["searched_tasks"] for row in record.rounds] == [[2, 5], [6, 9], [10, 13]]
    folders = [str(spec.folder / f"round_{number}" / "pairs") for number in (1, 2, 3)]
    assert config(spec, 1, "fit")["data"]["init_args"]["pairs"] == folders[0]
    third = config(spec, 3, "fit")["data"]["init_args"]["pairs"]
    assert third == [{"path": folder} for folder in folders]
    assert config(spec, 3, "predict")["data"]["init_args"]["tasks"]["split"] == "valid"


def test_a_failed_stage_stops_the_loop_and_the_next_run_goes_on_there(spec: Improve) -> None:
    script(
        spec,
        round_1={"q_guided": HIGH, "random_of_n": LOW},
        round_2={"q_guided": HIGHER, "random_of_n": LOW},
    )
    spec = replace(spec, budget=LoopBudget(rounds=2))
    (spec.folder / "fails_round_2_fit").touch()

    with pytest.raises(subprocess.CalledProcessError):
        run(spec)

    stopped = saved(spec)
    assert stopped["status"] == "stopped"
    assert stopped["why"].startswith("round 2: python ")
    assert stopped["why"].endswith("fit.yaml ended with status 3")
    assert calls(spec) == [("round_1", name) for name in STAGES] + [
        ("round_2", name) for name in STAGES[:3]
    ]
    record = run(spec)
    assert calls(spec)[7:] == [("round_2", "fit"), ("round_2", "predict")]
    assert [row["accepted"] for row in record.rounds] == [True, True]
    # A finished loop has nothing left to do, and says the same.
    assert run(spec).rounds == record.rounds
    assert len(calls(spec)) == 9


def test_more_rounds_are_added_to_a_finished_loop(spec: Improve) -> None:
    rewards = {"q_guided": LOW, "random_of_n": LOW}
    script(spec, round_1=rewards, round_2=rewards)
    run(replace(spec, budget=LoopBudget(rounds=1)))

    record = run(replace(spec, budget=LoopBudget(rounds=2)))

    assert [row["round"] for row in record.rounds] == [1, 2]
    assert len(calls(spec)) == 8


def test_a_budget_stops_the_loop_and_a_raised_one_goes_on(spec: Improve) -> None:
    rewards = {"q_guided": LOW, "random_of_n": LOW}
    script(spec, round_1=rewards, round_2=rewards, round_3=rewards)

    # A round costs 10 requests of collecting and 24 of playing.
    record = run(replace(spec, budget=LoopBudget(rounds=3, requests=40)))

    assert (record.status, record.why) == ("stopped", "44 of 40 requests are spent")
    assert len(record.rounds) == 1
    assert record.spent["tokens"] == 2 * 1100 + 24 * 15
    [row] = record.rounds
    assert row["cost"]["requests"] == row["spent"]["requests"] == 34
    assert record.spent["requests"] == 44
    assert calls(spec)[4:] == [("round_2", "collect")]
    said: list[str] = []
    more = run_loop(replace(spec, budget=LoopBudget(rounds=2, requests=1000)), say=said.append)
    assert more.rounds[1]["cost"] == more.rounds[0]["cost"] | {
        "seconds": more.rounds[1]["cost"]["seconds"]
    }
    assert more.rounds[1]["spent"]["requests"] == 68
    [line] = [text for text in said if text.startswith("predict took")]
    assert line.endswith("68 requests, 2,920 tokens")
    assert more.status == "finished"
    assert calls(spec)[5:] == [("round_2", name) for name in STAGES[1:]]


def test_collecting_gets_what_is_left_and_goes_on_if_it_was_cut(spec: Improve) -> None:
    rewards = {"q_guided": LOW, "random_of_n": LOW}
    script(spec, round_1={**rewards, "cut": True})
    tight = replace(spec, budget=LoopBudget(rounds=1, requests=10))

    assert run(tight).status == "stopped"

    lines = [json.loads(x) for x in (spec.folder / "calls.jsonl").read_text().splitlines()]
    assert lines[0]["options"] == ["--budget.run.requests", "10"]
    assert run(tight).status == "stopped"  # nothing is left, nothing is run
    assert len(calls(spec)) == 1
    script(spec, round_1=rewards)
    assert run(replace(spec, budget=LoopBudget(rounds=1, requests=100))).status == "finished"
    assert calls(spec)[1:] == [("round_1", name) for name in STAGES]


def test_a_budget_in_dollars_counts_tokens_by_their_prices(spec: Improve) -> None:
    rewards = {"q_guided": LOW, "random_of_n": LOW}
    script(spec, round_1=rewards)
    priced = replace(
        spec,
        budget=LoopBudget(rounds=1, dollars=9.0),
        prices=Prices(prompt=1.0, generated=10.0),
    )

    record = run(priced)

    tokens = (1000 + 24 * 10) * 1.0 + (100 + 24 * 5) * 10.0
    assert record.spent["dollars"] == pytest.approx(tokens / 1e6)
    played = config(spec, 1, "predict")["data"]["init_args"]["play"]
    assert played["prices"] == {"prompt": 1.0, "generated": 10.0}


def test_an_episode_that_was_tried_again_is_paid_for_twice(spec: Improve) -> None:
    rewards = {"q_guided": LOW, "random_of_n": LOW}
    script(spec, round_1={**rewards, "tried_twice": ["task-0", "task-1"]})

    record = run(replace(spec, budget=LoopBudget(rounds=1)))

    # Collecting, 24 episodes, and four more tries of two agents.
    assert record.spent["requests"] == 10 + 24 + 4
    assert record.spent["tokens"] == 1100 + (24 + 4) * 15


def test_other_settings_or_configs_are_refused_by_name(spec: Improve, tmp_path: Path) -> None:
    rewards = {"q_guided": LOW, "random_of_n": LOW}
    script(spec, round_1=rewards)
    one = replace(spec, budget=LoopBudget(rounds=1))
    run(one)

    with pytest.raises(StoreError, match='train_on: "all" there, "new" now'):
        run(replace(one, train_on="new"))
    (tmp_path / "pairs.yaml").write_text("rule: adjacent")
    with pytest.raises(StoreError, match=r"configs.pairs.rule: \"paper\" there, \"adjacent\" now"):
        run(one)


def test_tasks_that_the_world_lacks_are_refused_before_anything_is_run(spec: Improve) -> None:
    script(spec, round_1={"q_guided": LOW, "random_of_n": LOW})

    with pytest.raises(ConfigError, match=r"lower budget\.rounds"):
        run(replace(spec, budget=LoopBudget(rounds=4)))

    assert not (spec.folder / "calls.jsonl").exists()
    # The folder is still free for other settings.
    assert run(replace(spec, train_on="new", budget=LoopBudget(rounds=1))).status == "finished"


def test_two_loops_do_not_share_a_folder(spec: Improve) -> None:
    script(spec, round_1={"q_guided": LOW, "random_of_n": LOW})
    with (
        lock_folder(spec.folder),
        pytest.raises(StoreError, match="in use by another process, or by a stage"),
    ):
        run(spec)
