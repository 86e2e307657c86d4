"""ScienceWorld's simulator: Java objects of one process, made to answer the same way every time.

Two simulators of the same variation list equal objects, doors and menu entries in different orders.
Here such lists are sorted, and a menu's numbers count the sorted entries, so that a branch can be
repeated on any simulator.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.environments.text_games.java import JavaProcess
from lit_qagent.environments.text_games.packages import package_file
from lit_qagent.environments.text_games.scienceworld_tasks import NUM_VARIATIONS
from lit_qagent.environments.text_games.simulator import Simulator, SimulatorHost, View

WORLD = "ScienceWorld"
_MENU = "Ambiguous request"
_REFUSALS = ("No known action", "Unknown action")
_MENU_ENTRY = re.compile(r"^(\d+):\t(.*)$", re.MULTILINE)
_DOOR_LIST = re.compile(r"A door to [^,()]+ \([^()]*\)(?:, A door to [^,()]+ \([^()]*\))+")
_FIRST_COMMAND = "look around"


class ScienceHost(SimulatorHost):
    """Starts one Java process for all simulators of a world.

    Args:
        simplifications: The package's simplifications, such as ``easy``.
        heap_mb: Most memory for Java objects; a simulator takes about 12 MB.
    """

    def __init__(self, simplifications: str, *, heap_mb: int) -> None:
        self._simplifications = simplifications
        self._heap_mb = heap_mb
        self._process: JavaProcess | None = None

    def open(self) -> Simulator:
        """Make one more simulator."""
        if self._process is None or not self._process.is_alive:
            jar = package_file("scienceworld", "scienceworld.jar", world=WORLD)
            self._process = JavaProcess(world=WORLD, jar=jar, heap_mb=self._heap_mb)
        return ScienceSimulator(self._process, self._simplifications)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
        self._process = None

    def forget(self) -> object:
        """Give up the process without touching it."""
        process, self._process = self._process, None
        return process

    def __reduce__(self) -> tuple[Any, ...]:
        return (partial(ScienceHost, heap_mb=self._heap_mb), (self._simplifications,))


class ScienceSimulator(Simulator):
    """One simulator in a Java process."""

    def __init__(self, process: JavaProcess, simplifications: str) -> None:
        self._process = process
        self._simplifications = simplifications
        self._java = process.call(process.classes.scienceworld.runtime.pythonapi.PythonInterface)
        self._loaded: tuple[str, int] | None = None
        self._menu: list[str] = []  # the game's own numbers, in the order of the sorted entries

    def start(self, game: Mapping[str, Any]) -> View:
        """Load the variation, or reset it if it is loaded already, and look around."""
        wanted = (game["task"], game["variation"])
        if self._loaded != wanted:
            self._load(*wanted, with_solution=False)
        else:
            self._process.call(self._java.reset)
        self._menu = []
        task = self._process.call(self._java.freeActionTaskDesc).removeprefix("Task Description:")
        return self._view(_FIRST_COMMAND, lead=f"{task.strip()}\n", with_commands=True)

    def act(self, command: str) -> View:
        """Carry out a command, or choose from the menu that the last command led to."""
        return self._view(command, with_commands=True)

    def repeat(self, command: str) -> View:
        """Carry out a command without asking for the list of commands, the slow part."""
        return self._view(command, with_commands=False)

    def solution(self, game: Mapping[str, Any]) -> Sequence[str]:
        """Return the package's own solution."""
        self._load(game["task"], game["variation"], with_solution=True)
        return list(self._process.call(self._java.getGoldActionSequence))

    @property
    def is_alive(self) -> bool:
        """False once the Java process has ended."""
        return self._process.is_alive

    def _load(self, task: str, variation: int, *, with_solution: bool) -> None:
        call, java = self._process.call, self._java
        num_variations = call(java.getTaskMaxVariations, task)
        if num_variations != NUM_VARIATIONS[task]:
            raise EnvironmentFailure(
                f"{WORLD}: this version of the package has {num_variations} variations of {task}, "
                f"expected {NUM_VARIATIONS[task]}; pip install 'scienceworld==1.2.3'"
            )
        call(java.load, task, variation, self._simplifications, with_solution)
        self._loaded = None if with_solution else (task, variation)

    def _view(self, command: str, *, with_commands: bool, lead: str = "") -> View:
        if self._menu:
            if not (command.isdigit() and int(command) < len(self._menu)):
                return View(text="Answer with one of the numbers.", is_understood=False)
            command = self._menu[int(command)]
        call, java = self._process.call, self._java
        text = call(java.step, command)
        score = call(java.getScore)
        is_over = bool(call(java.getCompleted)) or score < 0
        self._menu = []
        if text.startswith(_MENU):
            text, self._menu = sort_menu(text)
        commands: tuple[str, ...] = ()
        if self._menu:
            commands = tuple(str(number) for number in range(len(self._menu)))
        elif with_commands and not is_over:
            listed = json.loads(call(java.getValidActionObjectCombinationsJSON))["validActions"]
            commands = tuple(sorted({entry["action"] for entry in listed}))
        return View(
            text=lead + sort_lists(text).strip(),
            commands=commands,
            score=min(1.0, max(0.0, score)),
            is_over=is_over,
            is_understood=not text.startswith(_REFUSALS),
        )


def sort_menu(text: str) -> tuple[str, list[str]]:
    """Sort the entries of a menu and number them anew.

    Returns:
        The menu's text, and the game's own number of each of its entries.
    """
    entries = sorted((what.strip(), number) for number, what in _MENU_ENTRY.findall(text))
    lines = ["Ambiguous request: answer with the number of what you mean:"]
    lines += [f"{index}: {what}" for index, (what, _) in enumerate(entries)]
    return "\n".join(lines), [number for _, number in entries]


def sort_lists(text: str) -> str:
    r"""Sort each run of indented lines and each list of doors.

    Examples:
        >>> sort_lists("Here you see: \n\ta table\n\ta bed\nThat is all.")
        'Here you see: \n\ta bed\n\ta table\nThat is all.'
    """
    lines: list[str] = []
    run: list[str] = []
    for line in text.split("\n"):
        if line.startswith("\t"):
            run.append(line)
            continue
        lines += [*sorted(run), line]
        run = []
    joined = "\n".join([*lines, *sorted(run)])
    return _DOOR_LIST.sub(lambda found: ", ".join(sorted(_split_doors(found.group()))), joined)


def _split_doors(listed: str) -> list[str]:
    return [f"A door to {rest}".removesuffix(", ") for rest in listed.split("A door to ")[1:]]
