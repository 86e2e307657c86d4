"""Splits of generated worlds: how many tasks each has, and which tasks they are."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Task
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.base import Environment

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Number of tasks in each split of a generated world.

    Attributes:
        train: Tasks to search and learn from.
        valid: Tasks to tune on.
        test: Tasks to report on.
    """

    train: int = 60
    valid: int = 20
    test: int = 40

    def __post_init__(self) -> None:
        for split in ("train", "valid", "test"):
            if getattr(self, split) < 0:
                raise ConfigError(f"splits.{split} must be >= 0, got {getattr(self, split)}")

    @property
    def total(self) -> int:
        """Tasks of all splits together."""
        return self.train + self.valid + self.test


def draw_splits(items: Sequence[T], sizes: SplitSizes, seed: int) -> dict[str, list[T]]:
    """Deal shuffled items to the splits without overlap.

    Test is dealt first, then valid, so more training tasks leave the held-out ones as they are.

    Args:
        items: What to deal; at least ``sizes.total`` of them.
        sizes: How many each split gets.
        seed: Decides the order.
    """
    order = list(items)
    random.Random(derive_seed(seed, "splits")).shuffle(order)
    held_out = sizes.test + sizes.valid
    return {
        "train": order[held_out : sizes.total],
        "valid": order[sizes.test : held_out],
        "test": order[: sizes.test],
    }


def tasks_of_split(tasks: Mapping[str, Sequence[Task]], split: str, world: str) -> Sequence[Task]:
    """Return the tasks of one split.

    Raises:
        ConfigError: No such split.
    """
    if split not in tasks:
        raise ConfigError(f"{world} has no split {split!r}; choose one of {', '.join(tasks)}")
    return tasks[split]


def tasks_in_range(
    world: Environment, split: str, first_task: int, num_tasks: int, *, remedy: str
) -> list[Task]:
    """Return tasks of a split that follow each other.

    Args:
        world: The world.
        split: The split.
        first_task: Position of the first one, from 0.
        num_tasks: How many.
        remedy: What to do where there are fewer, for the message.

    Raises:
        ConfigError: No such split, or it ends before the range does.
    """
    known = world.tasks(split)
    end = first_task + num_tasks
    if end > len(known):
        raise ConfigError(
            f"tasks {first_task} to {end - 1} of split {split!r} were asked for, "
            f"but {world.name} has {len(known)}; {remedy}"
        )
    return list(known[first_task:end])
