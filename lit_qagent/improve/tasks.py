"""Whether the world has the tasks of a loop; looked at before anything is run.

A split that is missing or too small would otherwise show after hours, in the round that needs it.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_qagent.command_line import Parser
from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.base import Environment
from lit_qagent.environments.splits import tasks_in_range
from lit_qagent.improve.configs import Config, init_args
from lit_qagent.improve.spec import Improve


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Tasks that a loop needs, and what may be changed if they are not there."""

    purpose: str
    split: str
    first_task: int
    num_tasks: int
    remedy: str

    def __str__(self) -> str:
        last = self.first_task + self.num_tasks - 1
        return f"{self.purpose} takes tasks {self.first_task} to {last} of split {self.split!r}"

    def ids_in(self, world: Environment) -> set[str]:
        try:
            found = tasks_in_range(
                world, self.split, self.first_task, self.num_tasks, remedy=self.remedy
            )
        except ConfigError as error:
            raise ConfigError(f"{self.purpose}: {error}") from error
        return {task.task_id for task in found}


def check_tasks(spec: Improve, base: Mapping[str, Config]) -> None:
    """Build the worlds of the collect and the predict config, and look for the tasks of all rounds.

    Args:
        spec: The loop.
        base: Its configs by command.

    Raises:
        ConfigError: A config names no world, a split is missing or too small, or a task would be
            searched and decide too.
        QAgentError: A world cannot be built.
    """
    searched, deciding = _searched(spec, base["collect"]), _deciding(spec)
    config = base["collect"].get("environment")
    world = _build(config, "configs.collect")
    trained_on = searched.ids_in(world)
    other = init_args(base["predict"]["data"]).get("environment")
    if other != config:
        world = _build(other, "configs.predict")
    shared = sorted(trained_on & deciding.ids_in(world))
    if shared:
        raise ConfigError(
            f"{searched}, and {deciding}: {len(shared)} of them are the same, such as "
            f"{shared[0]}; no task may be in both, so set tasks.first_task, validation.first_task "
            "or validation.split"
        )


def _searched(spec: Improve, collect: Config) -> _Wanted:
    rounds = spec.budget.rounds
    return _Wanted(
        purpose=f"the search of {rounds} rounds",
        split=collect.get("split", "train"),
        first_task=spec.tasks.first_task,
        num_tasks=rounds * spec.tasks.per_round,
        remedy="lower budget.rounds, tasks.per_round or tasks.first_task",
    )


def _deciding(spec: Improve) -> _Wanted:
    wanted = spec.validation
    return _Wanted(
        purpose="validation",
        split=wanted.split,
        first_task=wanted.first_task,
        num_tasks=wanted.num_tasks,
        remedy="lower validation.num_tasks or validation.first_task",
    )


def _build(config: Any, name: str) -> Environment:  # noqa: ANN401 (a class path, or a mapping)
    """Return the world of a config; nothing else of it is built."""
    if config is None:
        raise ConfigError(f"{name} names no world; give its environment")
    parser = Parser(exit_on_error=False)
    parser.add_subclass_arguments(Environment, "environment")
    try:
        values = parser.parse_object({"environment": config})
    except argparse.ArgumentError as error:
        raise ConfigError(f"{name}: {error}") from error
    world: Environment = parser.instantiate(values).environment
    return world
