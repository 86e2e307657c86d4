"""Which ScienceWorld tasks there are, and how they are split: the package's way or a file's."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.environments.text_games.packages import known_name

SPLITS = ("train", "dev", "test")

# Variations of each task in scienceworld 1.2.3; a simulator checks the one it starts.
NUM_VARIATIONS = {
    "boil": 30,
    "change-the-state-of-matter-of": 30,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "find-animal": 300,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "freeze": 30,
    "grow-fruit": 126,
    "grow-plant": 126,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
    "inclined-plane-determine-angle": 168,
    "inclined-plane-friction-named-surfaces": 1386,
    "inclined-plane-friction-unnamed-surfaces": 162,
    "lifespan-longest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "lifespan-shortest-lived": 125,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "melt": 30,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 480,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "use-thermometer": 540,
}

_FILE_FORM = (
    '{"train": [[task, variation], ...], "dev": ..., "test": ..., "max_steps": {task: steps}}, '
    "max_steps optional"
)


class Variation(NamedTuple):
    """One variation of a task."""

    task: str
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScienceSplits:
    """The variations of each split.

    Attributes:
        variations: Split name to variations, in order.
        step_budgets: Task name to the commands after which its game ends; may be empty.
    """

    variations: Mapping[str, Sequence[Variation]]
    step_budgets: Mapping[str, int]


def package_splits(tasks: Iterable[str], reserved: Sequence[Variation]) -> ScienceSplits:
    """Return the package's own splits: of each task half, a quarter and the rest.

    Args:
        tasks: Task names; an unknown one is a ConfigError.
        reserved: Variations in no split, as they are shown as examples.
    """
    names = [known_name(name, NUM_VARIATIONS, "task of ScienceWorld") for name in tasks]
    variations: dict[str, list[Variation]] = {split: [] for split in SPLITS}
    for name in names:
        for split, numbers in zip(SPLITS, _ranges(NUM_VARIATIONS[name]), strict=True):
            every = (Variation(name, number) for number in numbers)
            variations[split] += [each for each in every if each not in reserved]
    return ScienceSplits(variations=variations, step_budgets={})


def read_splits(path: Path) -> ScienceSplits:
    """Read splits and step limits from a JSON file, such as the published lists of ETO.

    Raises:
        DataError: The file is missing or not of this form; the message names the entry.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no file {path} of ScienceWorld splits; expected {_FILE_FORM}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path} as JSON: {error}; expected {_FILE_FORM}") from None
    if not isinstance(content, dict) or not any(split in content for split in SPLITS):
        raise DataError(f"{path} names none of {', '.join(SPLITS)}; expected {_FILE_FORM}")
    variations = {
        split: [_read_entry(entry, f"{path}: {split}[{index}]") for index, entry in enumerate(rows)]
        for split, rows in content.items()
        if split != "max_steps"
    }
    for split, entries in variations.items():
        if len(set(entries)) < len(entries):
            raise DataError(f"{path}: split {split!r} names a variation twice")
    limits = content.get("max_steps", {})
    return ScienceSplits(
        variations=variations,
        step_budgets={
            _task_name(name, f"{path}: max_steps"): _positive(limit, f"{path}: max_steps.{name}")
            for name, limit in limits.items()
        },
    )


def plain_task_name(name: str) -> str:
    """Return a task's name without the number and the brackets of the published lists.

    Examples:
        >>> plain_task_name("task-10-measure-melting-point-(known-substance)")
        'measure-melting-point-known-substance'
    """
    return re.sub(r"^task-\d+[ab]?-|[()]", "", name).replace("mendellian", "mendelian")


def _ranges(num_variations: int) -> tuple[range, range, range]:
    quarter = num_variations // 4
    bounds = (0, 2 * quarter, 3 * quarter, num_variations)
    train, dev, test = (range(*pair) for pair in pairwise(bounds))
    return train, dev, test


def _read_entry(entry: Any, where: str) -> Variation:  # noqa: ANN401 (whatever the file holds)
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
        raise DataError(f"{where} is {entry!r:.80}, expected [task, variation]")
    task, number = _task_name(entry[0], where), entry[1]
    most = NUM_VARIATIONS[task]
    if not isinstance(number, int) or not 0 <= number < most:
        raise DataError(f"{where}: {task} has variations 0 to {most - 1}, got {number!r:.40}")
    return Variation(task, number)


def _task_name(name: str, where: str) -> str:
    try:
        return known_name(plain_task_name(name), NUM_VARIATIONS, "task of ScienceWorld")
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from None


def _positive(limit: Any, where: str) -> int:  # noqa: ANN401 (whatever the file holds)
    if not isinstance(limit, int) or limit < 1:
        raise DataError(f"{where} is {limit!r:.40}, expected a number of steps >= 1")
    return limit
