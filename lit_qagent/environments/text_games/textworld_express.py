"""TextWorldExpress: small household games at well under a millisecond a command."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.core.records import Task
from lit_qagent.environments.splits import tasks_of_split
from lit_qagent.environments.text_games.java import JavaProcess
from lit_qagent.environments.text_games.packages import known_name, package_file, package_version
from lit_qagent.environments.text_games.pool import place_of
from lit_qagent.environments.text_games.simulator import Simulator, SimulatorHost, View
from lit_qagent.environments.text_games.text_game import GameSpec, TextGame

WORLD = "TextWorldExpress"
_SEEDS_PER_FOLD = 1000
# The package's own seeds: each fold has its own thousand, and the objects differ between folds.
_FIRST_SEEDS = {"train": 0, "dev": 10_000, "test": 20_000}
_EXAMPLE_SEEDS = (5_000, 5_001)
_DEFAULT_GAME = GameSpec()
# This game's objects are shared between all its simulators in a process, so there is one simulator.
_ONE_AT_A_TIME = ("sorting",)

_RULES = {
    "twc": "Some objects lie where they do not belong. Take each one and put it where people "
    "usually keep it; open what is closed first.",
    "cookingworld": "Read the recipe in the cookbook, gather its ingredients, cut and cook them "
    "as it says, prepare the meal and eat it. Food prepared in the wrong way is lost.",
    "coin": "Somewhere in the house is a coin. Go through the rooms until you find it and take it.",
    "mapreader": "Fetch the coin from the place named in the task and put it into the box. "
    "The map says how the places are joined.",
    "arithmetic": "Solve the math problem, take the bundle whose number is the result, "
    "and put it into the box.",
    "sorting": "Put the bundles into the box one after the other, the smallest quantity first. "
    "Mind the units.",
    "simonsays": "Do in each step exactly what Simon says.",
    "peckingorder": "Read the instructions, do what they say, and read them again.",
}


class TextWorldExpress(TextGame):
    """One game of TextWorldExpress; every seed is a task, a thousand per split.

    Args:
        name_of_game: ``twc``, ``cookingworld``, ``coin``, ``mapreader``, ``arithmetic``,
            ``sorting``, ``simonsays`` or ``peckingorder``.
        parameters: The game's own parameters, such as ``numLocations``; the rest have its defaults.
        game: What can be chosen for every text game.
        max_steps: Step limit.
        distinct: Leave out the games that begin as an earlier one of their split does; with few
            objects many do, and what is held out should not be counted twice.

    Raises:
        MissingPackage: The package textworld-express is not installed.
        ConfigError: There is no such game.
    """

    name = "textworld-express"
    version = "1"
    lists_everything = True

    def __init__(
        self,
        *,
        name_of_game: str = "twc",
        parameters: Mapping[str, int] | None = None,
        game: GameSpec = _DEFAULT_GAME,
        max_steps: int = 30,
        distinct: bool = False,
    ) -> None:
        self.distinct = distinct
        self.name_of_game = known_name(name_of_game, _RULES, "game of TextWorldExpress")
        self.parameters = dict(parameters or {})
        self._package = package_version(
            "textworld-express", world=WORLD, how="pip install 'lit-qagent[worlds]'"
        )
        text = ",".join(f"{key}={value}" for key, value in sorted(self.parameters.items()))
        if name_of_game in _ONE_AT_A_TIME:
            game = replace(game, num_simulators=1)
        host = _ExpressHost(name_of_game, text, heap_mb=256 + 16 * game.num_simulators)
        super().__init__(host=host, game=game, max_steps=max_steps)
        self._tasks = {
            split: [self._make_task(seed, split) for seed in range(first, first + _SEEDS_PER_FOLD)]
            for split, first in _FIRST_SEEDS.items()
        }
        self._distinct: dict[str, list[Task]] = {}

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``train``, ``dev`` or ``test``.

        A thousand, and it needs no Java; ``distinct`` starts each of them once and keeps fewer.
        """
        tasks = tasks_of_split(self._tasks, split, self.name)
        if not self.distinct:
            return tasks
        if split not in self._distinct:
            self._distinct[split] = self._leave_out_repeats(tasks)
        return self._distinct[split]

    def instructions(self) -> str:
        """Return the rules of the game, and how commands look."""
        return (
            f"You play a text game. {_RULES[self.name_of_game]}\n"
            "Commands are plain words, such as: open fridge; take apple; put apple in fridge."
        )

    def data_hash(self) -> str:
        """Return a hash of the package's version, the game and its parameters."""
        content = [self.version, self._package, self.name_of_game, sorted(self.parameters.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return the base settings, the package's version, the game and its parameters."""
        return {
            **super().settings(),
            "package": f"textworld-express {self._package}",
            "name_of_game": self.name_of_game,
            "parameters": self.parameters,
            **({"distinct": True} if self.distinct else {}),
        }

    def _leave_out_repeats(self, tasks: Sequence[Task]) -> list[Task]:
        """Keep the first of all games that begin with one text and one list of commands."""
        first: dict[tuple[str, tuple[str, ...]], Task] = {}
        for task in tasks:
            view = self.pool.start(place_of(self._game_of(task)))
            first.setdefault((view.text, view.commands), task)
        return list(first.values())

    def _make_task(self, seed: int, split: str) -> Task:
        return Task(
            task_id=f"{self.name_of_game}-{seed}",
            instruction=f"{_RULES[self.name_of_game]} (game {seed})",
            split=split,
            data={"seed": seed, "fold": split if split in _FIRST_SEEDS else "train"},
        )

    def _game_of(self, task: Task) -> Mapping[str, Any]:
        return {"seed": task.data["seed"], "fold": task.data["fold"]}

    def _example_tasks(self) -> Sequence[Task]:
        return [self._make_task(seed, "example") for seed in _EXAMPLE_SEEDS]


class _ExpressHost(SimulatorHost):
    """Starts one Java process for all simulators of a world."""

    def __init__(self, game: str, parameters: str, heap_mb: int) -> None:
        self._heap_mb = heap_mb
        self._game = game
        self._parameters = parameters
        self._process: JavaProcess | None = None

    def open(self) -> Simulator:
        if self._process is None or not self._process.is_alive:
            jar = package_file("textworld_express", "textworld-express.jar", world=WORLD)
            self._process = JavaProcess(world=WORLD, jar=jar, heap_mb=self._heap_mb)
        return _ExpressSimulator(self._process, self._game, self._parameters)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = None

    def forget(self) -> object:
        process, self._process = self._process, None
        return process

    def __reduce__(self) -> tuple[Any, ...]:
        return (_ExpressHost, (self._game, self._parameters, self._heap_mb))


class _ExpressSimulator(Simulator):
    def __init__(self, process: JavaProcess, game: str, parameters: str) -> None:
        self._process = process
        self._java = process.call(process.classes.textworldexpress.runtime.PythonInterface)
        if problem := process.call(self._java.load, game, parameters):
            raise EnvironmentFailure(f"{WORLD} refuses {game} with {parameters!r}: {problem}")

    def start(self, game: Mapping[str, Any]) -> View:
        return self._start(game, with_solution=False)

    def act(self, command: str) -> View:
        return _view(self._process.call(self._java.stepJSON, command))

    def solution(self, game: Mapping[str, Any]) -> Sequence[str]:
        self._start(game, with_solution=True)
        return list(self._process.call(self._java.getGoldActionSequence))

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive

    def _start(self, game: Mapping[str, Any], *, with_solution: bool) -> View:
        shown = self._process.call(
            self._java.generateNewGameJSON, game["seed"], game["fold"], with_solution
        )
        task = self._process.call(self._java.getTaskDescription)
        return _view(shown, lead=f"{task.strip()}\n")


def _view(answer: str, lead: str = "") -> View:
    shown = json.loads(answer)
    score = min(1.0, max(0.0, shown["score"]))
    is_over = shown["tasksuccess"] or shown["taskfailure"] or score >= 1
    text = shown["observation"].strip()
    return View(
        text=lead + text,
        commands=() if is_over else tuple(sorted(set(shown["validActions"]))),
        score=score,
        is_over=is_over,
        is_understood=not text.startswith("Unknown action"),
    )
