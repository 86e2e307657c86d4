"""A text game without Java: walk along a corridor, take the coin at its end, or fall into a pit."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.core.records import Task
from lit_qagent.environments.splits import tasks_of_split
from lit_qagent.environments.text_games.simulator import Simulator, SimulatorHost, View
from lit_qagent.environments.text_games.text_game import GameSpec, TextGame

_NUM_TASKS = 4


class FakeSimulator(Simulator):
    """Counts what is asked of it; every command, understood or not, costs the game a tick."""

    def __init__(self, host: "FakeHost") -> None:
        self.host = host
        self.length = self.position = self.ticks = 0
        self.is_closed = False

    def start(self, game: Mapping[str, Any]) -> View:
        self.host.log.append("start")
        self.length, self.position, self.ticks = game["length"], 0, 0
        return self._view("You are in a corridor.")

    def act(self, command: str) -> View:
        self.host.log.append(command)
        if command == self.host.breaks_at:
            self.host.is_running = False
            raise EnvironmentFailure("the fake game broke")
        self.ticks += 1
        moves = {"go east": 1, "go west": -1}
        if command in moves:
            self.position = min(self.length, max(0, self.position + moves[command]))
            return self._view(f"You go to {self.position}.")
        if command == "take coin" and self.position == self.length:
            return View(text="You have it.", score=1.0, is_over=True)
        if command == "jump":
            return View(text="You fall.", score=self._score, is_over=True)
        if command == "shout":  # understood, but not listed
            return self._view("Echo.")
        return View(text="What?", score=self._score, is_understood=False)

    def solution(self, game: Mapping[str, Any]) -> Sequence[str]:
        return [*["go east"] * game["length"], "take coin"]

    @property
    def is_alive(self) -> bool:
        return self.host.is_running

    def close(self) -> None:
        self.is_closed = True

    @property
    def _score(self) -> float:
        return self.position / (self.length + 1)

    def _view(self, text: str) -> View:
        commands = ["go east", "go west", "jump"]
        if self.position == self.length:
            commands.append("take coin")
        drift = self.host.drift if self.ticks else 0.0
        return View(
            text=f"{text} Tick {self.ticks}.",
            commands=tuple(sorted(commands)),
            score=self._score + drift,
        )


class FakeHost(SimulatorHost):
    """Remembers every simulator it made."""

    def __init__(self) -> None:
        self.opened: list[FakeSimulator] = []
        self.log: list[str] = []
        self.breaks_at = ""
        self.drift = 0.0
        self.is_running = False
        self.num_closed = 0

    def open(self) -> Simulator:
        self.is_running = True
        self.opened.append(FakeSimulator(self))
        return self.opened[-1]

    def close(self) -> None:
        self.num_closed += 1

    def __reduce__(self) -> tuple[Any, ...]:
        return (FakeHost, ())


class FakeGame(TextGame):
    """Corridors of length 1, 2, ...; an example corridor is of length 7."""

    name = "fake-game"
    version = "1"

    def __init__(self, *, game: GameSpec | None = None, max_steps: int = 6) -> None:
        self.host = FakeHost()
        super().__init__(host=self.host, game=game or GameSpec(), max_steps=max_steps)

    def tasks(self, split: str) -> Sequence[Task]:
        return tasks_of_split(
            {"train": [_task(n, "train") for n in range(1, _NUM_TASKS + 1)]}, split, self.name
        )

    def instructions(self) -> str:
        return "Find the coin."

    def data_hash(self) -> str:
        return hashlib.sha256(b"fake").hexdigest()

    def _game_of(self, task: Task) -> Mapping[str, Any]:
        return task.data

    def _example_tasks(self) -> Sequence[Task]:
        return [_task(7, "example")]


def _task(length: int, split: str) -> Task:
    return Task(
        task_id=f"corridor-{length}",
        instruction="Find the coin.",
        split=split,
        data={"length": length},
    )
