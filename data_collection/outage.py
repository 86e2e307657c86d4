"""Tells a policy that is down from a task that it cannot answer, and waits for it."""

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lit_qagent.core.errors import ContextOverflow, PolicyFailure

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


@dataclass(kw_only=True)
class Outage:
    """What is known of the policy's health, over all trees.

    A tree that gets no answer waits and asks again. If it fails once more while others are
    answered, it is what fails. While nobody is answered all wait; after ``patience_s`` a second
    tree without an answer means that the policy is down and the run must stop.

    Attributes:
        patience_s: How long to wait for an answer to anybody, in seconds.
        answers: Iterations that succeeded so far.
        clock: Seconds; tests give their own.
    """

    patience_s: float
    answers: int = 0
    clock: Callable[[], float] = time.monotonic
    _since: float | None = None
    _trees: set[str] = field(default_factory=set)

    def succeeded(self) -> None:
        """Note that somebody was answered."""
        self.answers += 1
        self._since = None
        self._trees.clear()

    def is_of_tree(self, error: Exception, mark: int | None) -> bool:
        """Return whether a failure is known to be the tree's own: others are answered meanwhile.

        Args:
            error: What the iteration failed with.
            mark: What `waits` returned before this try; None at the first.
        """
        is_own = not isinstance(error, PolicyFailure) or isinstance(error, ContextOverflow)
        return is_own or (mark is not None and self.answers > mark)

    async def waits(
        self, error: Exception, tree_id: str, mark: int | None, tries: int
    ) -> int | None:
        """Wait before the iteration is tried again.

        Args:
            error: What the iteration failed with.
            tree_id: The tree.
            mark: What this method returned before the try that failed; None at the first.
            tries: How often it was tried before.

        Returns:
            How many had been answered half way through the pause, when nothing that a dying
            policy had answered before can still be on its way; None if the tree is what fails.

        Raises:
            PolicyFailure: Nobody is answered any more.
        """
        if self.is_of_tree(error, mark):
            return None
        self._since = self.clock() if self._since is None else self._since
        self._trees.add(tree_id)
        waited = self.clock() - self._since
        if waited >= self.patience_s:
            if len(self._trees) > 1:
                raise PolicyFailure(
                    f"the policy has answered nobody for {waited:.0f} s ({error}); everything "
                    "finished is kept, and no task was given up for it"
                ) from error
            return None
        pause = min(_FIRST_PAUSE_S * 2**tries, _LONGEST_PAUSE_S, self.patience_s - waited)
        sys.stderr.write(f"no answer from the policy ({error}); asking again in {pause:.0f} s\n")
        await asyncio.sleep(pause / 2)
        answers = self.answers
        await asyncio.sleep(pause / 2)
        return answers
