"""ScienceWorld: elementary-school science in a house with many rooms, objects and commands."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Task
from lit_qagent.environments.splits import tasks_of_split
from lit_qagent.environments.text_games.packages import package_version
from lit_qagent.environments.text_games.scienceworld_simulator import WORLD, ScienceHost
from lit_qagent.environments.text_games.scienceworld_tasks import (
    NUM_VARIATIONS,
    ScienceSplits,
    Variation,
    package_splits,
    read_splits,
)
from lit_qagent.environments.text_games.text_game import GameSpec, TextGame

SIMPLIFICATIONS = (
    "easy",
    "teleportAction",
    "openDoors",
    "selfWateringFlowerPots",
    "noElectricalAction",
    "openContainers",
)
# Shown as examples; the last training variations of short tasks, kept out of the package's splits.
_EXAMPLES = (Variation("find-non-living-thing", 149), Variation("lifespan-longest-lived", 61))
_DEFAULT_GAME = GameSpec(num_simulators=4)
_INSTRUCTIONS = """\
You do science experiments in a simulated house with several rooms. Read the task, find what it
needs, and act in small steps. Focus on an object only when the task asks for it: to focus on a
wrong one ends the task without success.
Commands are plain words: look around; look at X; open X; {travel}; pick up X; move X to Y;
pour X into Y; mix X; activate X; connect X to Y; use X on Y; read X; wait; inventory; focus on X.
If a command fits several objects, a numbered list is shown: answer with a number."""


class ScienceWorld(TextGame):
    """The thirty ScienceWorld tasks; every variation is a task of this world.

    Args:
        names: The tasks to play, in order; None: all (or all of the file's).
        splits_file: A JSON file of splits and step limits, such as the published lists of ETO;
            None: the package's own splits.
        simplifications: The package's simplifications, joined by commas.
        game: What can be chosen for every text game; a step limit of the file goes before
            ``step_budget``.
        max_steps: Step limit; not below the file's limits, if they are to be reached.

    Raises:
        MissingPackage: The package scienceworld is not installed.
        ConfigError: There is no such task or simplification.
        DataError: The file is missing or not of the expected form.
    """

    name = "scienceworld"
    version = "1"

    def __init__(
        self,
        *,
        names: Sequence[str] | None = None,
        splits_file: str | None = None,
        simplifications: str = "easy",
        game: GameSpec = _DEFAULT_GAME,
        max_steps: int = 120,
    ) -> None:
        self._package = package_version(
            "scienceworld", world=WORLD, how="pip install 'lit-qagent[worlds]'"
        )
        self.simplifications = _check_simplifications(simplifications)
        host = ScienceHost(simplifications, heap_mb=512 + 32 * game.num_simulators)
        super().__init__(host=host, game=game, max_steps=max_steps)
        # Checks the names in any case; a file's splits are then narrowed to them.
        splits = package_splits(names or NUM_VARIATIONS, _EXAMPLES)
        if splits_file is not None:
            splits = _narrow(read_splits(Path(splits_file)), names)
        self._splits = splits
        self._tasks = {
            split: [_make_task(variation, split) for variation in variations]
            for split, variations in splits.variations.items()
        }

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``train``, ``dev`` or ``test``; needs no Java."""
        return tasks_of_split(self._tasks, split, self.name)

    def instructions(self) -> str:
        """Return what can be done and what ends a task."""
        chosen = self.simplifications.split(",")
        can_teleport = "easy" in chosen or "teleportAction" in chosen
        return _INSTRUCTIONS.format(travel="teleport to ROOM" if can_teleport else "go to ROOM")

    def data_hash(self) -> str:
        """Return a hash of the package's version, the simplifications, splits and step limits."""
        content = [
            *(self.version, self._package, self.simplifications),
            *(self._splits.variations, sorted(self._splits.step_budgets.items())),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return the base settings, the package's version and the simplifications."""
        return {
            **super().settings(),
            "package": f"scienceworld {self._package}",
            "simplifications": self.simplifications,
            "has_step_limits": bool(self._splits.step_budgets),
        }

    def _game_of(self, task: Task) -> Mapping[str, Any]:
        return {"task": task.data["task"], "variation": task.data["variation"]}

    def _budget_of(self, task: Task) -> int | None:
        return self._splits.step_budgets.get(task.data["task"], self.game.step_budget)

    def _example_tasks(self) -> Sequence[Task]:
        used = {each for variations in self._splits.variations.values() for each in variations}
        return [_make_task(each, "example") for each in _EXAMPLES if each not in used]


def _make_task(variation: Variation, split: str) -> Task:
    return Task(
        task_id=f"{variation.task}-{variation.number}",
        instruction=f"{variation.task.replace('-', ' ')} (variation {variation.number})",
        split=split,
        data={"task": variation.task, "variation": variation.number},
    )


def _narrow(splits: ScienceSplits, names: Sequence[str] | None) -> ScienceSplits:
    if names is None:
        return splits
    variations = {
        split: [each for each in every if each.task in names]
        for split, every in splits.variations.items()
    }
    return ScienceSplits(variations=variations, step_budgets=splits.step_budgets)


def _check_simplifications(simplifications: str) -> str:
    for name in filter(None, simplifications.split(",")):
        if name not in SIMPLIFICATIONS:
            raise ConfigError(
                f"scienceworld.simplifications has {name!r}; "
                f"choose from {', '.join(SIMPLIFICATIONS)}, joined by commas"
            )
    return simplifications
