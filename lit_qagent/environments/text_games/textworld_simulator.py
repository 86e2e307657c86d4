"""TextWorld's games: one interpreter in this process per simulator.

Copying an interpreter costs more than starting the game anew and repeating the few commands of a
branch (benchmarks/bench_text_games.py measures both), so branches are repeated here too.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.environments.text_games.packages import known_to_work
from lit_qagent.environments.text_games.simulator import Simulator, View

_END = re.compile(r"\s*Would you like to RESTART.*", re.DOTALL)
_REFUSALS = ("You can't see any such thing", "I only understood", "I didn't understand")
_CENTRED = re.compile(r"^ +(?=\*\*\*)", re.MULTILINE)


class TextWorldSimulator(Simulator):
    """Plays game files.

    Args:
        find_game: Returns the file of a game, writing it first if need be.
    """

    def __init__(self, find_game: Callable[[Mapping[str, Any]], Path]) -> None:
        self._find_game = find_game
        self._path: Path | None = None
        self._env: Any = None

    def start(self, game: Mapping[str, Any]) -> View:
        """Open the game's file, or restart it if it is open already."""
        path = self._find_game(game)
        if path != self._path:
            self.close()
            self._env, self._path = self._open(path), path
        with known_to_work():
            shown = self._do(self._env.reset)
        return self._see(shown, is_first=True)

    def act(self, command: str) -> View:
        """Carry out a listed command, or one that changes nothing.

        Others must not be sent: the game may follow them where TextWorld's list does not.
        """
        shown, _, _ = self._do(self._env.step, command)
        return self._see(shown, is_first=False)

    def solution(self, game: Mapping[str, Any]) -> Sequence[str]:
        """Return the shortest commands that win, by TextWorld's planner."""
        env = self._open(self._find_game(game), policy_commands=True)
        try:
            with known_to_work():
                return list(self._do(env.reset).policy_commands)
        finally:
            env.close()

    def close(self) -> None:
        """Close the interpreter."""
        if self._env is not None:
            self._env.close()
        self._env, self._path = None, None

    def _open(self, path: Path, **more: bool) -> Any:  # noqa: ANN401 (textworld has no types)
        textworld = importlib.import_module("textworld")
        wanted = textworld.EnvInfos(
            admissible_commands=True,
            score=True,
            max_score=True,
            won=True,
            lost=True,
            objective=True,
            **more,
        )
        with known_to_work():
            return self._do(textworld.start, str(path), wanted)

    def _do(self, method: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        try:
            return method(*arguments)
        except Exception as error:
            raise EnvironmentFailure(
                f"TextWorld: {self._path} broke at {arguments!r:.80}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _see(self, shown: Any, *, is_first: bool) -> View:  # noqa: ANN401
        is_over = bool(shown.won or shown.lost)
        text = clean_text(shown.feedback, shown.objective if is_first else "")
        return View(
            text=text,
            commands=() if is_over else tuple(sorted(set(shown.admissible_commands))),
            score=min(1.0, max(0.0, shown.score / shown.max_score)),
            is_over=is_over,
            is_understood=not text.startswith(_REFUSALS),
        )


def clean_text(feedback: str, objective: str) -> str:
    r"""Return what the game says without its title picture, its prompt and its status line.

    Args:
        feedback: The game's words.
        objective: What the game starts by asking; anything before it is left out.

    Examples:
        >>> clean_text("\n\nYou take the pear.\n\n\n>      -= Kitchen =-1/3", "")
        'You take the pear.'
    """
    told = feedback.rsplit("\n>", 1)[0]
    begin = told.find(objective) if objective else 0
    told = _CENTRED.sub("", _END.sub("", told[max(begin, 0) :]))
    lines = [line.rstrip() for line in told.strip().splitlines()]
    kept = [line for line, after in zip(lines, [*lines[1:], "end"], strict=True) if line or after]
    return "\n".join(kept)
