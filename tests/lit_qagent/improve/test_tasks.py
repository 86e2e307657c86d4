from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.improve.spec import (
    Improve,
    LoopBudget,
    RoundTasks,
    StageConfigs,
    ValidationTasks,
)
from lit_qagent.improve.tasks import check_tasks

TOY = "lit_qagent.environments.toy.ToyWorld"


def world(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    splits = {"train": 30, "valid": 10, "test": 1}
    return {"class_path": TOY, "init_args": {"splits": splits, **changes}}


@pytest.fixture
def spec() -> Improve:
    """Two rounds search tasks 10 to 19 of train; the ten tasks of valid decide."""
    none = Path("unread.yaml")
    return Improve(
        folder=Path("unused"),
        configs=StageConfigs(collect=none, pairs=none, fit=none, predict=none),
        tasks=RoundTasks(per_round=5, first_task=10),
        validation=ValidationTasks(num_tasks=10),
        budget=LoopBudget(rounds=2),
    )


def configs(collect: Any = None, predict: Any = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    play = {"data": {"init_args": {"environment": predict or world()}}}
    return {"collect": {"environment": collect or world(), **changes}, "predict": play}


def test_the_searched_split_may_decide_where_no_task_is_in_both(spec: Improve) -> None:
    check_tasks(spec, configs())
    for first in (0, 20):
        wanted = ValidationTasks(num_tasks=10, split="train", first_task=first)
        check_tasks(replace(spec, validation=wanted), configs())


def test_a_task_that_is_searched_and_decides_is_refused(spec: Improve) -> None:
    shifted = replace(spec, validation=ValidationTasks(num_tasks=10, split="train", first_task=1))

    with pytest.raises(ConfigError) as caught:
        check_tasks(shifted, configs())

    message = str(caught.value)
    assert "the search of 2 rounds takes tasks 10 to 19 of split 'train'" in message
    assert "validation takes tasks 1 to 10 of split 'train': 1 of them are the same" in message
    assert "set tasks.first_task, validation.first_task or validation.split" in message
    # The last round's tasks count as the first one's do.
    late = replace(spec, validation=ValidationTasks(num_tasks=10, split="train", first_task=19))
    with pytest.raises(ConfigError, match="1 of them are the same"):
        check_tasks(late, configs())


def test_other_tasks_of_another_world_are_compared_by_their_ids(spec: Improve) -> None:
    # In a world dealt by another seed, validation tasks are training tasks of this one.
    with pytest.raises(ConfigError, match="of them are the same"):
        check_tasks(spec, configs(predict=world(seed=1)))


@pytest.mark.parametrize(
    ("changes", "made", "message"),
    [
        (
            {"budget": LoopBudget(rounds=5)},
            configs(),
            "the search of 5 rounds: tasks 10 to 34 of split 'train' were asked for, "
            "but toy has 30; lower budget.rounds, tasks.per_round or tasks.first_task",
        ),
        (
            {"validation": ValidationTasks(num_tasks=11)},
            configs(),
            "validation: tasks 0 to 10 of split 'valid' were asked for, but toy has 10; "
            "lower validation.num_tasks or validation.first_task",
        ),
        (
            {"validation": ValidationTasks(num_tasks=10, split="dev")},
            configs(),
            "validation: toy has no split 'dev'; choose one of train, valid, test",
        ),
        ({}, configs(split="learn"), "the search of 2 rounds: toy has no split 'learn'"),
        ({}, configs(collect={"class_path": "no.World"}), "configs.collect: .*no.World"),
        ({}, configs(predict=world(depht=3)), "configs.predict: .*depht"),
        ({}, configs(environment=None), "configs.collect names no world; give its environment"),
    ],
)
def test_a_world_that_lacks_what_a_loop_needs_is_refused(
    spec: Improve, changes: dict[str, Any], made: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        check_tasks(replace(spec, **changes), made)
