"""Splits of generated worlds: how many tasks each has, and which tasks they are."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Task
from lit_qagent.core.seeds import derive_seed

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
