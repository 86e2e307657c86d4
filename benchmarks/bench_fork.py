"""What a branch costs in every world: `fork` against replaying the actions from the start.

    python benchmarks/bench_fork.py
    python benchmarks/bench_fork.py --worlds toy webshop --steps 4

For each world a few steps of a task are played; then the next step is taken in many new branches,
made once by `fork` and once by `reset` and replay. Both must see the same. Worlds of third parties
are measured where their packages are installed.
"""

import argparse
import importlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import add_json_option, show

from lit_qagent.core.errors import MissingPackage
from lit_qagent.core.records import Task
from lit_qagent.environments.base import Environment
from lit_qagent.environments.hotpotqa import HotPotQA
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.environments.webshop import WebShop
from lit_qagent.environments.webshop.catalog import CatalogSpec
from lit_qagent.environments.webshop.engine import PageSpec

NUM_QUESTIONS = 40
LIMIT_S = 3.0  # for one side of one world
THIRD_PARTY = {
    "textworld-express": ("textworld_express", "TextWorldExpress"),
    "scienceworld": ("scienceworld", "ScienceWorld"),
    "textworld": ("textworld_cooking", "TextWorldCooking"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", nargs="+", default=[*BUILT_IN, *THIRD_PARTY])
    parser.add_argument("--steps", type=int, default=5, help="steps before the branches, at most")
    parser.add_argument("--branches", type=int, default=200, help="branches of each kind, at most")
    add_json_option(parser)
    options = parser.parse_args()
    rows = []
    for name in options.worlds:
        with tempfile.TemporaryDirectory() as folder:
            make = BUILT_IN.get(name)
            try:
                world = make(Path(folder)) if make else make_third_party(name)
            except (ImportError, MissingPackage) as error:
                rows.append({"world": name, "skipped": str(error)})
                continue
            try:
                rows.append(measure(name, world, options.steps, options.branches))
            finally:
                getattr(world, "close", lambda: None)()
    show(rows, options.json)


def make_hotpotqa(folder: Path) -> Environment:
    """Questions of invented towns, ten pages each."""
    records = [make_question(number) for number in range(NUM_QUESTIONS)]
    path = folder / "questions.json"
    path.write_text(json.dumps(records))
    return HotPotQA(data={"train": str(path)}, actions="listed")


def make_question(number: int) -> dict[str, Any]:
    rng = random.Random(number)
    town, river, mayor = f"Torvik {number}", f"Elm River {number}", f"Mira Holt {number}"
    pages = [
        [river, [f"The {river} is a river.", f" It rises near {town}.", " It is cold."]],
        [town, [f"{town} is a town.", f" Its mayor is {mayor}.", " It has a harbour."]],
    ]
    for other in range(8):
        words = " ".join(rng.choices(("mill", "bridge", "market", "school", "tower"), k=30))
        pages.append([f"Place {number} {other}", [f"A place with {words}.", " It is old."]])
    return {
        "_id": f"q{number}",
        "question": f"Who is the mayor of the town near which the {river} rises?",
        "answer": mayor,
        "type": "bridge",
        "level": "easy",
        "supporting_facts": [[river, 1], [town, 1]],
        "context": pages,
    }


def make_shop(folder: Path) -> Environment:
    return WebShop(
        catalog=CatalogSpec(num_products=1_000),
        splits=SplitSizes(train=50, valid=5, test=5),
        pages=PageSpec(search="listed"),
    )


def make_third_party(name: str) -> Environment:
    """Return a world of a package that need not be there.

    Raises:
        ImportError: It is not part of this version, or the package is not installed.
        MissingPackage: The package or Java is not installed.
    """
    if name not in THIRD_PARTY:
        raise SystemExit(f"no world {name!r}, expected one of {[*BUILT_IN, *THIRD_PARTY]}")
    module, class_name = THIRD_PARTY[name]
    found = importlib.import_module(f"lit_qagent.environments.text_games.{module}")
    world: Environment = getattr(found, class_name)()
    return world


BUILT_IN: dict[str, Callable[[Path], Environment]] = {
    "toy": lambda _: ToyWorld(depth=5, max_steps=8, splits=SplitSizes(train=50, valid=5, test=5)),
    "webshop": make_shop,
    "hotpotqa": make_hotpotqa,
}


def measure(name: str, world: Environment, num_steps: int, num_branches: int) -> dict[str, Any]:
    task = world.tasks("train")[0]
    branch, following = walk(world, task, num_steps)
    actions = branch.actions

    def by_fork() -> Environment:
        return branch.fork()

    def by_replay() -> Environment:
        twin = world.fork()
        twin.reset(task)
        for action in actions:
            twin.step(action)
        return twin

    expected = by_replay().step(following)
    bare = time_branches(by_fork, lambda twin: None, num_branches)
    forked = time_branches(by_fork, lambda twin: check(twin, following, expected), num_branches)
    replayed = time_branches(by_replay, lambda twin: check(twin, following, expected), num_branches)
    return {
        "world": name,
        "steps_before": len(actions),
        "fork_us": bare,
        "fork_and_step_us": forked,
        "replay_and_step_us": replayed,
        "replay_to_fork": replayed / forked,
    }


def walk(world: Environment, task: Task, num_steps: int) -> tuple[Environment, str]:
    """Play until the limit, or until every command would end the episode; return the next one."""
    rng = random.Random(0)
    branch = world.fork()
    branch.reset(task)
    while True:
        commands = list(branch.observation.admissible or ())
        rng.shuffle(commands)
        steps = ((command, branch.fork()) for command in commands)
        command = next((c for c, twin in steps if not twin.step(c).is_last), None)
        if command is None or len(branch.actions) >= num_steps:
            return branch, command or commands[0]
        branch.step(command)


def check(twin: Environment, action: str, expected: object) -> None:
    if twin.step(action) != expected:
        raise SystemExit(f"{twin.name}: a branch did not see what a replay saw")


def time_branches(
    make: Callable[[], Environment], use: Callable[[Environment], None], num_branches: int
) -> float:
    """Return the median microseconds to make and use a branch."""
    times: list[float] = []
    until_s = time.perf_counter() + LIMIT_S
    while len(times) < num_branches and (len(times) < 3 or time.perf_counter() < until_s):
        start_s = time.perf_counter()
        use(make())
        times.append((time.perf_counter() - start_s) * 1e6)
    return statistics.median(times)


if __name__ == "__main__":
    main()
