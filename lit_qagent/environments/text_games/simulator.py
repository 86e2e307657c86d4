"""What a third-party game looks like from here: a simulator that plays one game at a time.

Simulators cannot copy what they hold, so a branch of a text world is no simulator: it is the game's
name and the commands so far, and `pool.SimulatorPool` brings a simulator to it when it is stepped.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a simulator shows after the start or after a command.

    Attributes:
        text: What the game says.
        commands: Every command that the game lists, sorted, none twice; empty at the end.
        score: Score in [0, 1].
        is_over: The game has ended, won or lost.
        is_understood: False if the game could not carry the command out.
    """

    text: str
    commands: tuple[str, ...] = ()
    score: float = 0.0
    is_over: bool = False
    is_understood: bool = True


class Simulator(ABC):
    """Plays one game at a time; the same commands after `start` always give the same views.

    Every method raises EnvironmentFailure if the simulator breaks; it is then thrown away.
    """

    @abstractmethod
    def start(self, game: Mapping[str, Any]) -> View:
        """Start a game from its beginning."""

    @abstractmethod
    def act(self, command: str) -> View:
        """Carry out a command."""

    @abstractmethod
    def solution(self, game: Mapping[str, Any]) -> Sequence[str]:
        """Start a game and return commands that win it; only examples and tests ask for them."""

    def repeat(self, command: str) -> View:
        """Carry out a command again; may be cheaper than `act` by leaving out the commands."""
        return self.act(command)

    @property
    def is_alive(self) -> bool:
        """False if the process behind it has ended."""
        return True

    def close(self) -> None:
        """Let go of whatever it holds; may be called twice."""
        return


class SimulatorHost(ABC):
    """Makes simulators and owns the process that they share, if there is one. Can be pickled."""

    @abstractmethod
    def open(self) -> Simulator:
        """Make one more simulator, starting the shared process first if need be.

        Raises:
            MissingPackage: A package or program is not installed.
            EnvironmentFailure: The process does not start.
        """

    def close(self) -> None:
        """End the shared process; `open` starts a new one."""
        return

    def forget(self) -> object:
        """Give up the shared process without touching it: another operating-system process owns it.

        Returns:
            What must be kept alive so that nothing is sent to that process.
        """
        return None
