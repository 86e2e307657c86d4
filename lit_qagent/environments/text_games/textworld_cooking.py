"""TextWorld's cooking games as a ladder of four levels."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lit_qagent.core.records import Task
from lit_qagent.environments.splits import SplitSizes, tasks_of_split
from lit_qagent.environments.text_games.cooking_games import LEVELS, CookingGames, default_folder
from lit_qagent.environments.text_games.packages import known_name, package_version
from lit_qagent.environments.text_games.simulator import Simulator, SimulatorHost, View
from lit_qagent.environments.text_games.text_game import GameSpec, TextGame, fold
from lit_qagent.environments.text_games.textworld_simulator import TextWorldSimulator

WORLD = "TextWorld"
_DEFAULT_GAME = GameSpec(num_simulators=8)
_DEFAULT_SPLITS = SplitSizes()
_ARTICLES = ("the", "a", "an", "some")
_EXAMINED = re.compile(r"examine( [a-z-]+){1,5}", re.ASCII)
_NOT_NAMES = {"then", "and", "it", "them", "all"}
_SYNONYMS = {"get": "take", "grab": "take", "x": "examine", "l": "look", "i": "inventory"}
_INSTRUCTIONS = """\
You play a text game in a house. Read the recipe in the cookbook, gather its ingredients, which may
be in closed places, cut and cook them exactly as it says, then prepare the meal and eat it.
Food that is cut or cooked in another way is spoiled, and the game is lost. The stove fries, the
oven roasts, the barbecue grills; a knife is needed to chop, dice or slice.
Commands are plain words: look; inventory; examine X; open X; take X from Y; put X on Y;
insert X into Y; drop X; chop X with knife; cook X with oven; prepare meal; eat meal."""


class TextWorldCooking(TextGame):
    """Cooking games of one level; each task is a game of its own, written on first use.

    Args:
        level: ``b`` (one ingredient), ``c`` (it must be cut), ``d`` (and cooked) or ``e`` (two).
        splits: Games per split; the foods of the splits differ.
        folder: Where games are kept; None: ``textworld`` in ``LIT_QAGENT_CACHE`` or
            ``~/.cache/lit_qagent``.
        seed: Decides the games.
        game: What can be chosen for every text game.
        max_steps: Step limit.

    Raises:
        MissingPackage: The package textworld is not installed.
        ConfigError: There is no such level.
    """

    name = "textworld-cooking"
    version = "1"
    lists_everything = True

    def __init__(
        self,
        *,
        level: str = "b",
        splits: SplitSizes = _DEFAULT_SPLITS,
        folder: str | None = None,
        seed: int = 0,
        game: GameSpec = _DEFAULT_GAME,
        max_steps: int = 20,
    ) -> None:
        self.level = known_name(level, LEVELS, "level of TextWorld's cooking games")
        self.splits = splits
        self.seed = seed
        self._package = package_version(
            "textworld", world=WORLD, how="pip install 'lit-qagent[textworld]'"
        )
        games = CookingGames(
            level=level,
            package=self._package,
            folder=Path(folder).expanduser() if folder else default_folder(),
            seed=seed,
        )
        super().__init__(host=_CookingHost(games), game=game, max_steps=max_steps)
        self._tasks = {
            split: [self._make_task(split, index) for index in range(number)]
            for split, number in asdict(splits).items()
        }

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``train``, ``valid`` or ``test``; writes no game."""
        return tasks_of_split(self._tasks, split, self.name)

    def instructions(self) -> str:
        """Return how to cook."""
        return _INSTRUCTIONS

    def data_hash(self) -> str:
        """Return a hash of the package's version, the level, the sizes and the seed."""
        content = [self.version, self._package, self.level, asdict(self.splits), self.seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return the base settings, the package's version, the level, the sizes and the seed."""
        return {
            **super().settings(),
            "package": f"textworld {self._package}",
            "level": self.level,
            "splits": asdict(self.splits),
            "seed": self.seed,
        }

    def _make_task(self, split: str, index: int) -> Task:
        return Task(
            task_id=f"cooking-{self.level}-{self.seed}-{split}-{index}",
            instruction=f"Cook the meal of the cookbook (level {self.level}, {split} {index})",
            split=split,
            data={"split": split, "index": index},
        )

    def _game_of(self, task: Task) -> Mapping[str, Any]:
        return task.data

    def _example_tasks(self) -> Sequence[Task]:
        return [self._make_task("example", 0)]

    def _resolve(self, command: str, view: View) -> str | None:
        """Return the listed command that is meant: articles, synonyms and clear ends may be off."""
        words = [word for word in fold(command).split() if word not in _ARTICLES]
        if words[:2] == ["pick", "up"]:
            words[:2] = ["take"]
        if words:
            words[0] = _SYNONYMS.get(words[0], words[0])
        meant = " ".join(words)
        starts = [known for known in view.commands if f"{known} ".startswith(f"{meant} ")]
        if meant in starts:
            return meant
        if _EXAMINED.fullmatch(meant) and not _NOT_NAMES.intersection(words):
            return meant  # TextWorld does not list this for what is held
        return starts[0] if len(starts) == 1 and len(words) > 1 else None


class _CookingHost(SimulatorHost):
    """Every simulator is an interpreter of its own; there is no process to share."""

    def __init__(self, games: CookingGames) -> None:
        self._games = games

    def open(self) -> Simulator:
        return TextWorldSimulator(self._find)

    def _find(self, game: Mapping[str, Any]) -> Path:
        return self._games.ensure(game["split"], game["index"])
