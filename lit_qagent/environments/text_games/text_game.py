"""What all text games share: branches as command lists, free and listed commands, scores."""

import copy
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Literal, NamedTuple, Self

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Observation, Task, Trajectory
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.text_games.pool import Place, SimulatorPool, place_of
from lit_qagent.environments.text_games.simulator import SimulatorHost, View

# What may be sent to a game although it is not listed; a full stop would start a second command.
_FREE_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,'()/-]{0,119}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class GameSpec:
    """What can be chosen for every text game.

    Attributes:
        step_budget: Commands after which the game ends by itself and pays the score reached; None:
            it ends only when it is won or lost, and an episode cut by ``max_steps`` pays nothing.
        reward: ``final`` score, or the ``best`` score of the episode.
        hide: First words of commands that are not listed, such as ``examine``; written by the
            agent, they still work.
        max_listed: Most commands listed; what is left out is counted in the metric ``unlisted``,
            and works when written. None: all.
        num_simulators: Most simulators at once; more save repeated commands when many searches
            take turns.
    """

    step_budget: int | None = None
    reward: Literal["final", "best"] = "final"
    hide: tuple[str, ...] = ()
    max_listed: int | None = None
    num_simulators: int = 16

    def __post_init__(self) -> None:
        for name in ("step_budget", "max_listed", "num_simulators"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"game.{name} must be >= 1, got {value}")


class Progress(NamedTuple):
    """Where a branch stands; never changed in place.

    Attributes:
        place: The game and the commands carried out.
        view: What the game showed last.
        best: Best score so far.
        unlisted: Commands left out of lists so far.
    """

    place: Place
    view: View
    best: float
    unlisted: int


class TextGame(Environment):
    """A third-party text game; a subclass says which games there are and who plays them.

    Attributes:
        lists_everything: True if the game understands no other commands than it lists.

    Args:
        host: Makes simulators.
        game: What can be chosen for every text game.
        max_steps: Step limit; invalid commands count too.
    """

    lists_everything: bool = False

    def __init__(self, *, host: SimulatorHost, game: GameSpec, max_steps: int) -> None:
        super().__init__(max_steps=max_steps)
        self.game = game
        self.pool = SimulatorPool(host, size=game.num_simulators)
        self._solved: dict[str, Trajectory] = {}  # examples; played once for all branches

    @abstractmethod
    def _game_of(self, task: Task) -> Mapping[str, Any]:
        """Return what `Simulator.start` gets for a task, JSON values only."""

    def _example_tasks(self) -> Sequence[Task]:
        """Return tasks outside all splits whose solutions are shown as examples."""
        return ()

    def _budget_of(self, task: Task) -> int | None:
        """Return the number of commands after which the game of a task ends by itself."""
        return self.game.step_budget

    def fork(self) -> Self:
        """Return an independent branch; what a branch holds is never changed in place."""
        return copy.copy(self)

    def close(self) -> None:
        """End the simulators and their process; stepping any branch again starts new ones."""
        self.pool.close()

    def settings(self) -> dict[str, Any]:
        """Return the base settings and what was chosen for the game."""
        return {
            **super().settings(),
            "step_budget": self.game.step_budget,
            "reward": self.game.reward,
            "hide": list(self.game.hide),
            "max_listed": self.game.max_listed,
        }

    def examples(self) -> Sequence[Trajectory]:
        """Return solved episodes of games that are in no split."""
        for task in self._example_tasks():
            if task.task_id not in self._solved:
                self._solved[task.task_id] = self.solve(task)
        return tuple(self._solved[task.task_id] for task in self._example_tasks())

    def solve(self, task: Task) -> Trajectory:
        """Play a task by the game's own solution, in a branch of its own; no agent may call this.

        Raises:
            EnvironmentFailure: The simulator broke.
        """
        commands = self.pool.solution(place_of(self._game_of(task)))
        branch = self.fork()
        branch.game = replace(self.game, step_budget=None)
        branch.max_steps = len(commands) + 1
        branch.reset(task)
        for command in commands:
            if branch.is_over:
                break
            branch.step(f"Thought: {phrase_thought(command)}\nAction: {command}")
        return branch.trajectory

    def _start(self, task: Task) -> Observation:
        place = place_of(self._game_of(task))
        view = self.pool.start(place)
        return self._show(place, view, best=view.score, unlisted=0)

    def _act(self, command: str) -> Outcome:
        before: Progress = self._state
        known = self._resolve(command, before.view)
        if known is None:
            return Outcome(observation=self._invalid_observation(command), valid=False)
        view = self.pool.act(before.place, known, before.view)
        # A game may refuse what it lists itself; that is its answer, not the agent's fault.
        if not view.is_understood and known not in before.view.commands:
            refused = self._invalid_observation(command)
            text = f"{refused.text}\n{view.text}".strip()
            return Outcome(observation=replace(refused, text=text), valid=False)
        observation = self._show(
            before.place.after(known),
            view,
            best=max(before.best, view.score),
            unlisted=before.unlisted,
        )
        budget = self._budget_of(self.task)
        num_commands = len(before.place.commands) + 1
        if not view.is_over and (budget is None or num_commands < budget):
            return Outcome(observation=observation)
        metrics = self._metrics_at_limit()
        return Outcome(
            observation=replace(observation, admissible=None),
            reward=metrics["best_score" if self.game.reward == "best" else "score"],
            terminated=True,
            metrics=metrics,
        )

    def _metrics_at_limit(self) -> Mapping[str, float]:
        state: Progress = self._state
        return {
            "score": state.view.score,
            "best_score": state.best,
            "unlisted": float(state.unlisted),
        }

    def _show(self, place: Place, view: View, *, best: float, unlisted: int) -> Observation:
        """Keep what a branch now sees and return it as an observation."""
        listed = self._list_commands(view)
        left_out = len(self._visible(view)) - len(listed)
        self._state = Progress(place, view, best, unlisted + left_out)
        return Observation(text=view.text, admissible=listed or None)

    def _visible(self, view: View) -> list[str]:
        """Return the commands that are not hidden; all of them if nothing else is left."""
        hidden = self.game.hide
        kept = [command for command in view.commands if command.split(maxsplit=1)[0] not in hidden]
        return kept or list(view.commands)

    def _list_commands(self, view: View) -> tuple[str, ...]:
        visible, most = self._visible(view), self.game.max_listed
        return tuple(visible if most is None else spread_over_verbs(visible, most))

    def _resolve(self, command: str, view: View) -> str | None:
        """Return the command as the game wants it, or None if it need not be asked.

        White space and the case of letters do not matter.
        """
        folded = fold(command)
        for known in view.commands:
            if fold(known) == folded:
                return known
        if self.lists_everything or not _FREE_COMMAND.fullmatch(folded):
            return None
        return folded


def fold(command: str) -> str:
    """Return a command in lower case with single blanks.

    Examples:
        >>> fold(" Take  the Apple ")
        'take the apple'
    """
    return " ".join(command.split()).lower()


def spread_over_verbs(commands: Sequence[str], most: int) -> list[str]:
    """Return at most so many commands, taken from each verb in turn, in their order.

    Examples:
        >>> spread_over_verbs(["eat apple", "eat pear", "eat plum", "look", "wait"], 4)
        ['eat apple', 'eat pear', 'look', 'wait']
    """
    by_verb: dict[str, list[str]] = {}
    for command in commands:
        by_verb.setdefault(command.split(maxsplit=1)[0], []).append(command)
    rounds = [name for turn in zip_longest(*by_verb.values()) for name in turn if name is not None]
    kept = set(rounds[:most])
    return [command for command in commands if command in kept]


def phrase_thought(command: str) -> str:
    """Return what someone who knows the way might think before a command.

    Examples:
        >>> phrase_thought("take pear from table")
        'I will need that, so I take pear from table.'
    """
    verb, _, rest = command.partition(" ")
    reasons = {
        "take": "I will need that, so I",
        "put": "This is the right place, so I",
        "open": "Something may be inside, so I",
        "move": "What I look for is not here, so I",
        "go": "What I look for is not here, so I",
        "teleport": "What I look for is elsewhere, so I",
        "focus": "This is what the task asks for, so I",
    }
    return f"{reasons.get(verb, 'As the next step I')} {' '.join((verb, rest)).strip()}."
