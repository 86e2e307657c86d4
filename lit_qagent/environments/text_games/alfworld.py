"""ALFWorld: household tasks; its games must be downloaded by its own program first.

The games are not in the package. `alfworld-download` fetches them into the folder that
``ALFWORLD_DATA`` names; this module reads that folder.
"""

import hashlib
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError, EnvironmentFailure
from lit_qagent.core.records import Task
from lit_qagent.environments.splits import tasks_of_split
from lit_qagent.environments.text_games.packages import package_version
from lit_qagent.environments.text_games.simulator import Simulator, SimulatorHost, View
from lit_qagent.environments.text_games.text_game import GameSpec, TextGame

WORLD = "ALFWorld"
# Split of this world -> folder of the downloaded data.
_FOLDERS = {"train": "train", "valid": "valid_seen", "test": "valid_unseen"}
_GAME_FILE = "game.tw-pddl"
_DEFAULT_GAME = GameSpec(num_simulators=4)
_HOW_TO_GET = (
    "pip install alfworld, then run alfworld-download, "
    "and set ALFWORLD_DATA to the folder it filled (it holds json_2.1.1)"
)
_INSTRUCTIONS = """\
You do household tasks in one room. Go to places, open what is closed, take what is needed, clean,
heat or cool it if the task says so, and put it where it belongs.
Commands are plain words: go to X; open X; close X; take X from Y; move X to Y; clean X with Y;
heat X with Y; cool X with Y; use X; examine X; inventory; look. Objects have numbers: desk 1."""


class ALFWorld(TextGame):
    """The downloaded ALFWorld games; the reward is 1 when the task is done.

    Args:
        data: Folder with ``json_2.1.1``; None: ``ALFWORLD_DATA``.
        game: What can be chosen for every text game.
        max_steps: Step limit.

    Raises:
        MissingPackage: The package alfworld is not installed.
        DataError: The games are not there.
    """

    name = "alfworld"
    version = "1"

    def __init__(
        self, *, data: str | None = None, game: GameSpec = _DEFAULT_GAME, max_steps: int = 40
    ) -> None:
        self._package = package_version("alfworld", world=WORLD, how=_HOW_TO_GET)
        root = find_games(data)
        super().__init__(host=_HouseHost(root), game=game, max_steps=max_steps)
        self._tasks = {split: list_tasks(root, split) for split in _FOLDERS}
        if not any(self._tasks.values()):
            raise DataError(f"{root} holds no {_GAME_FILE}; {_HOW_TO_GET}")

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the games of ``train``, ``valid`` (rooms seen) or ``test`` (rooms unseen)."""
        return tasks_of_split(self._tasks, split, self.name)

    def instructions(self) -> str:
        """Return what can be done."""
        return _INSTRUCTIONS

    def data_hash(self) -> str:
        """Return a hash of the package's version and of the games' names."""
        ids = {split: [task.task_id for task in tasks] for split, tasks in self._tasks.items()}
        content = json.dumps([self.version, self._package, ids])
        return hashlib.sha256(content.encode()).hexdigest()

    def _game_of(self, task: Task) -> Mapping[str, Any]:
        return task.data


def find_games(data: str | None) -> Path:
    """Return the folder ``json_2.1.1`` of the downloaded data.

    Raises:
        DataError: It is not there.
    """
    chosen = data or os.environ.get("ALFWORLD_DATA")
    if not chosen:
        raise DataError(f"{WORLD}: no data folder is named; {_HOW_TO_GET}")
    root = Path(chosen).expanduser() / "json_2.1.1"
    if not root.is_dir():
        raise DataError(f"{WORLD}: there is no folder {root}; {_HOW_TO_GET}")
    return root


def list_tasks(root: Path, split: str) -> list[Task]:
    """Return the games of a split, sorted by path."""
    files = sorted((root / _FOLDERS[split]).glob(f"*/*/{_GAME_FILE}"))
    names = [file.parent.relative_to(root).as_posix() for file in files]
    return [
        Task(
            task_id=f"alfworld-{name}",
            instruction=name.split("/")[1].split("-")[0].replace("_", " "),
            split=split,
            data={"file": f"{name}/{_GAME_FILE}"},
        )
        for name in names
    ]


class _HouseHost(SimulatorHost):
    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self) -> Simulator:
        return _HouseSimulator(self._root)


class _HouseSimulator(Simulator):
    def __init__(self, root: Path) -> None:
        self._root = root
        textworld = importlib.import_module("textworld")
        environments = importlib.import_module("textworld.envs")
        self._env = environments.PddlEnv(
            textworld.EnvInfos(admissible_commands=True, won=True, extras=["walkthrough"])
        )

    def start(self, game: Mapping[str, Any]) -> View:
        self._do(self._env.load, str(self._root / game["file"]))
        return _view(self._do(self._env.reset))

    def act(self, command: str) -> View:
        shown, _, _ = self._do(self._env.step, command)
        return _view(shown)

    def solution(self, game: Mapping[str, Any]) -> Sequence[str]:
        content = json.loads((self._root / game["file"]).read_text(encoding="utf-8"))
        return list(content["walkthrough"])

    def close(self) -> None:
        self._env.close()

    def _do(self, method: Any, *arguments: str) -> Any:  # noqa: ANN401 (textworld has no types)
        try:
            return method(*arguments)
        except Exception as error:
            raise EnvironmentFailure(
                f"{WORLD}: {arguments!r:.120} failed: {type(error).__name__}: {error}"
            ) from error


def _view(shown: Mapping[str, Any]) -> View:
    text = shown["feedback"].strip()
    is_over = bool(shown["won"])
    # The banner of the first observation ends with the first description of the room.
    begin = text.find("You are in the middle of a room")
    return View(
        text=text[max(begin, 0) :],
        commands=() if is_over else tuple(sorted(set(shown["admissible_commands"]))),
        score=float(is_over),
        is_over=is_over,
        is_understood=not text.startswith("Nothing happens"),
    )
