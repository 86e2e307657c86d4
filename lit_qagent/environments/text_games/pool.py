"""Few simulators for many branches: each is led to a branch by repeating its commands."""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.environments.text_games.simulator import Simulator, SimulatorHost, View

T = TypeVar("T")

# What a forked process inherited; even freeing it would talk to the parent's simulators.
_INHERITED: list[object] = []


class Place(NamedTuple):
    """Where a branch stands: a game and the commands carried out in it."""

    game: str  # JSON, as `place_of` writes it
    commands: tuple[str, ...] = ()

    def after(self, command: str) -> "Place":
        """Return the place one command further on."""
        return Place(self.game, (*self.commands, command))


def place_of(game: Mapping[str, Any]) -> Place:
    """Return the beginning of a game."""
    return Place(json.dumps(game, sort_keys=True))


@dataclass(kw_only=True, slots=True, eq=False)
class _Slot:
    simulator: Simulator
    place: Place | None = None  # None: not known, only `start` helps
    last_used: int = 0


@dataclass(kw_only=True, slots=True)
class PoolCounts:
    """What a pool has done so far.

    Attributes:
        starts: Games started.
        acts: Commands of branches.
        repeats: Commands repeated to bring a simulator to a branch.
        hits: Commands for which a simulator already stood at the branch.
        other_texts: Repeated commands after which the text was not the one of before; the score
            was, or the branch would have failed.
    """

    starts: int = 0
    acts: int = 0
    repeats: int = 0
    hits: int = 0
    other_texts: int = 0


class SimulatorPool:
    """Simulators shared by all branches of a world; safe to use from several threads.

    A pickled or deep-copied world keeps its pool's host and size, never its simulators; after a
    fork of the operating-system process, the child opens its own.

    Args:
        host: Makes the simulators.
        size: Most simulators at once.
    """

    def __init__(self, host: SimulatorHost, *, size: int) -> None:
        if size < 1:
            raise ConfigError(f"num_simulators must be >= 1, got {size}")
        self.host = host
        self.size = size
        self.counts = PoolCounts()
        self._slots: list[_Slot] = []
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._clock = 0

    def start(self, place: Place) -> View:
        """Start a game and return its first view."""
        with self._guard():
            slot = self._free_slot()
            return self._run(slot, lambda: self._start(slot, place))

    def act(self, place: Place, command: str, last: View) -> View:
        """Carry out a command at a place.

        Args:
            place: Where the branch stands.
            command: What it does next.
            last: What the game showed there before.

        Raises:
            EnvironmentFailure: The simulator broke, or repeating the commands gave another score.
        """
        with self._guard():
            slot = self._slot_for(place)
            return self._run(slot, lambda: self._act(slot, place, command, last))

    def solution(self, place: Place) -> Sequence[str]:
        """Return commands that win a game."""
        with self._guard():
            slot = self._free_slot()
            slot.place = None
            return self._run(slot, lambda: slot.simulator.solution(json.loads(place.game)))

    @property
    def num_open(self) -> int:
        """Simulators open now."""
        return len(self._slots)

    def close(self) -> None:
        """End all simulators and their process; using the pool again opens new ones."""
        with self._guard():
            for slot in self._slots:
                slot.simulator.close()
            self._slots.clear()
            self.host.close()

    def _start(self, slot: _Slot, place: Place) -> View:
        slot.place = None
        view = slot.simulator.start(json.loads(place.game))
        self.counts.starts += 1
        slot.place = Place(place.game)
        return view

    def _act(self, slot: _Slot, place: Place, command: str, last: View) -> View:
        if slot.place == place:
            self.counts.hits += 1
        else:
            self._lead(slot, place, last)
        slot.place = None
        view = slot.simulator.act(command)
        self.counts.acts += 1
        # A command that was not understood may have cost the game a move, and a game that is over
        # cannot go on: in both cases nothing is known to stand here.
        if view.is_understood and not view.is_over:
            slot.place = place.after(command)
        return view

    def _lead(self, slot: _Slot, place: Place, last: View) -> None:
        """Bring a simulator to a place, from where it stands if that is on the way."""
        if slot.place is None or not _is_on_the_way(slot.place, place):
            view = self._start(slot, place)
        else:
            view = last
        assert slot.place is not None
        missing = place.commands[len(slot.place.commands) :]
        slot.place = None
        for command in missing:
            view = slot.simulator.repeat(command)
            self.counts.repeats += 1
        if view.is_over or abs(view.score - last.score) > 1e-9:
            raise EnvironmentFailure(
                f"repeating {len(place.commands)} commands of the game {place.game} gave score "
                f"{view.score:.4g} (over: {view.is_over}), before it was {last.score:.4g}; "
                "the game is not deterministic, so this branch cannot go on"
            )
        self.counts.other_texts += view.text != last.text

    def _slot_for(self, place: Place) -> _Slot:
        """Return the simulator that is nearest to a place on the way to it, or a free one."""
        near = [slot for slot in self._slots if slot.place and _is_on_the_way(slot.place, place)]
        if not near:
            return self._free_slot()
        return self._touch(
            max(near, key=lambda slot: len(slot.place.commands if slot.place else ()))
        )

    def _free_slot(self) -> _Slot:
        """Return a simulator that stands nowhere, a new one, or the one unused for longest."""
        idle = [slot for slot in self._slots if slot.place is None]
        if idle:
            return self._touch(idle[0])
        if len(self._slots) < self.size:
            self._slots.append(_Slot(simulator=self.host.open()))
            return self._touch(self._slots[-1])
        return self._touch(min(self._slots, key=lambda slot: slot.last_used))

    def _touch(self, slot: _Slot) -> _Slot:
        self._clock += 1
        slot.last_used = self._clock
        return slot

    def _run(self, slot: _Slot, work: Callable[[], T]) -> T:
        """Do something with a simulator; one that fails is thrown away, and so are dead ones."""
        try:
            return work()
        except BaseException:  # Ctrl-C in the middle of a command leaves it in an unknown state
            self._slots = [each for each in self._slots if each is not slot]
            slot.simulator.close()
            self._slots = [each for each in self._slots if each.simulator.is_alive]
            raise

    def _guard(self) -> threading.RLock:
        """Return the lock, after giving up what the process that this one forked from owns."""
        if self._owner != os.getpid():
            _INHERITED.append((self._slots, self._lock, self.host.forget()))
            self._slots, self._lock, self._owner = [], threading.RLock(), os.getpid()
        return self._lock

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make_pool, (self.host, self.size))


def _make_pool(host: SimulatorHost, size: int) -> SimulatorPool:
    return SimulatorPool(host, size=size)


def _is_on_the_way(here: Place, there: Place) -> bool:
    return here.game == there.game and here.commands == there.commands[: len(here.commands)]
