"""How many workers a run has: as many as were asked for, or as many as keep the batch full."""

from typing import Protocol

from data_collection.gate import Gate, Tuner

_LOOK_EVERY_S = 0.05
_FIRST_WORKERS = 8
_TREES_PER_SEQUENCE = 2


class Crew(Protocol):
    """Decides how many workers there are.

    Attributes:
        look_every_s: How often to ask, in seconds; None asks whenever a worker has left.
    """

    look_every_s: float | None

    def wanted(self, num_waiting: int, at_work: int) -> int:
        """Return how many workers should join, given the tasks that wait."""
        ...

    def may_leave(self) -> bool:
        """Return whether a worker that has finished a tree should go."""
        ...


class FixedCrew:
    """As many workers as were asked for.

    Args:
        size: How many.
    """

    look_every_s: float | None = None

    def __init__(self, size: int) -> None:
        self._size = size

    def wanted(self, num_waiting: int, at_work: int) -> int:
        """Return how many are missing."""
        return min(self._size - at_work, num_waiting)

    def may_leave(self) -> bool:
        """Return False."""
        return False


class TunedCrew:
    """As many workers as keep the target of a `Tuner` in flight.

    Args:
        gate: Where the requests pass.
    """

    look_every_s: float | None = _LOOK_EVERY_S

    def __init__(self, gate: Gate) -> None:
        self._tuner = Tuner(gate=gate)

    def wanted(self, num_waiting: int, at_work: int) -> int:
        """Return how many to add; at most as many again as there are, as each needs a while."""
        self._tuner.look()
        most = min(_TREES_PER_SEQUENCE * self._tuner.target - at_work, num_waiting)
        if not at_work:
            return min(_FIRST_WORKERS, most)
        per_tree = max(1, self._tuner.target - self._tuner.missing) / at_work
        return max(0, min(round(self._tuner.missing / per_tree), at_work, most))

    def may_leave(self) -> bool:
        """Return whether too many requests wait."""
        return self._tuner.missing < -self._tuner.target // 2
