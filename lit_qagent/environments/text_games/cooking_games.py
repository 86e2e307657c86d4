"""TextWorld's cooking games, written by its own generator into a cache folder on first use."""

import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.core.folders import cache_folder
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.text_games.packages import known_to_work

# The ladder: b finds and cooks up one ingredient, each further rung asks for one thing more.
LEVELS: dict[str, dict[str, Any]] = {
    "b": {"recipe": 1, "take": 1, "open": True},
    "c": {"recipe": 1, "take": 1, "open": True, "cut": True},
    "d": {"recipe": 1, "take": 1, "open": True, "cut": True, "cook": True},
    "e": {"recipe": 2, "take": 2, "open": True, "cut": True, "cook": True},
}
_ALL_OFF: dict[str, Any] = {"go": 1, "open": False, "cut": False, "cook": False, "drop": False}
_FOODS_OF = {"train": "train", "valid": "valid", "test": "test", "example": "train"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CookingGames:
    """Where the games of one level are, and how they are made.

    Attributes:
        level: A key of `LEVELS`.
        package: Version of textworld; another version writes other games.
        folder: Where they are kept.
        seed: Decides all games.
    """

    level: str
    package: str
    folder: Path
    seed: int

    def path(self, split: str, index: int) -> Path:
        """Return where a game is kept."""
        name = f"cooking-{self.level}-{self.seed}-{split}-{index}.z8"
        return self.folder / f"textworld-{self.package}" / name

    def ensure(self, split: str, index: int) -> Path:
        """Return a game's file, writing it first if it is not there; safe between processes.

        Raises:
            EnvironmentFailure: TextWorld's generator or its compiler failed.
        """
        path = self.path(split, index)
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                sys.stderr.write(f"TextWorld: writing {path} (a few seconds, once)\n")
                self._write(path, split, index)
        Path(f"{path}.lock").unlink(missing_ok=True)
        return path

    def _write(self, path: Path, split: str, index: int) -> None:
        seed = derive_seed("textworld cooking", self.seed, self.level, split, index)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as workplace:
            made = Path(workplace) / path.name
            try:
                with known_to_work():
                    settings = {**_ALL_OFF, **LEVELS[self.level]}
                    _generate(made, settings, _FOODS_OF[split], seed)
            except Exception as error:
                raise EnvironmentFailure(
                    f"TextWorld could not write the game {path.name}: "
                    f"{type(error).__name__}: {str(error)[-500:]}"
                ) from error
            # The facts first: whoever sees the game must find them beside it.
            made.with_suffix(".json").replace(path.with_suffix(".json"))
            made.replace(path)


def default_folder() -> Path:
    """Return where games are kept unless told otherwise."""
    return cache_folder() / "textworld"


def _generate(path: Path, settings: dict[str, Any], foods: str, seed: int) -> None:
    """Write one game and the JSON file of its facts."""
    textworld = importlib.import_module("textworld")
    cooking = importlib.import_module("textworld.challenges.tw_cooking.cooking")
    generator = importlib.import_module("textworld.generator")
    options = textworld.GameOptions()
    options.seeds = seed
    options.path = str(path)
    game = cooking.make({**settings, "split": foods, "recipe_seed": seed}, options)
    generator.compile_game(game, options)
