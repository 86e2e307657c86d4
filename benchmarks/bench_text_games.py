"""Third-party text worlds: cost of a step, a reset and a branch; memory over many episodes.

    python benchmarks/bench_text_games.py [--worlds twc] [--episodes 1000] [--json PATH]

Each world is compared in the same run with the package's own way to branch: a simulator (for Java
games a whole process) per branch for TextWorldExpress, `copy` for TextWorld. ScienceWorld's package
has no way to branch.
"""

import argparse
import importlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rows import add_json_option, show

from lit_qagent.core.errors import MissingPackage
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.text_games.scienceworld import ScienceWorld
from lit_qagent.environments.text_games.text_game import GameSpec, TextGame
from lit_qagent.environments.text_games.textworld_cooking import TextWorldCooking
from lit_qagent.environments.text_games.textworld_express import TextWorldExpress

_STEPS = 10
_TWC = {"numLocations": 1, "numItemsToPutAway": 3, "includeDoors": 0, "limitInventorySize": 0}
_COOKING = {"numLocations": 1, "numIngredients": 1}
# Default episodes: what finishes in seconds; the first tenth warms Java up and is not counted.
_EPISODES = {"twc": 300, "cookingworld": 200, "textworld": 60, "scienceworld": 15}
_NUM_GAMES = 4


def make_world(name: str, folder: str, steps: int) -> TextGame:
    game = GameSpec(step_budget=steps)
    if name == "twc":
        return TextWorldExpress(parameters=_TWC, game=game, max_steps=_STEPS)
    if name == "cookingworld":
        return TextWorldExpress(name_of_game=name, parameters=_COOKING, game=game, max_steps=_STEPS)
    if name == "textworld":
        splits = SplitSizes(train=_NUM_GAMES, valid=0, test=0)
        return TextWorldCooking(folder=folder, splits=splits, game=game, max_steps=_STEPS)
    names = ["find-non-living-thing", "lifespan-longest-lived", "boil", "power-component"]
    return ScienceWorld(names=names, game=GameSpec(step_budget=steps, num_simulators=4))


def bench_world(name: str, episodes: int, steps_each: int, folder: str) -> Iterator[dict[str, Any]]:
    world = make_world(name, folder, steps_each)
    tasks = list(world.tasks("train"))
    random.Random(0).shuffle(tasks)
    began = time.perf_counter()
    world.fork().reset(tasks[0])
    yield {"world": name, "what": "first reset, s", "value": time.perf_counter() - began}
    resets, steps, sizes = [], [], []
    rng = random.Random(0)
    for number in range(episodes):
        branch = world.fork()
        resets.append(timed(lambda b=branch, n=number: b.reset(tasks[n % len(tasks)])))
        while not branch.is_over:
            command = rng.choice(branch.observation.admissible or ("look",))
            steps.append(timed(lambda b=branch, c=command: b.step(c)))
        if number in (min(max(episodes // 10, world.pool.size), episodes - 2), episodes - 1):
            sizes.append((*resident_mb(), live_objects_mb(world)))
    skip = len(steps) // 10
    median = statistics.median(steps[skip:])
    yield {"world": name, "what": "step, ms", "value": median * 1e3}
    yield {"world": name, "what": "steps/s (mean)", "value": 1 / statistics.fmean(steps[skip:])}
    yield {"world": name, "what": "reset, ms", "value": statistics.median(resets[1:]) * 1e3}
    for place, before, after in zip(
        ("Python", "Java", "Java live objects"), sizes[0], sizes[-1], strict=True
    ):
        what = f"{place} memory after {episodes} episodes, MB (and its growth once warm)"
        yield {"world": name, "what": what, "value": after, "growth": after - before}
    yield from bench_branches(name, world, tasks, rng)
    world.close()


def bench_branches(
    name: str, world: TextGame, tasks: list[Any], rng: random.Random
) -> Iterator[dict[str, Any]]:
    """Step forks of a node five commands deep while the simulators stand elsewhere."""
    branch = deep_branch(world, tasks, rng)
    forks = [timed(branch.fork) for _ in range(200)]
    yield {"world": name, "what": "fork, ms", "value": statistics.median(forks) * 1e3}
    command = (branch.observation.admissible or ("look",))[0]
    seconds = []
    for _ in range(5):
        twin = branch.fork()
        for slot in world.pool._slots:
            slot.place = None
        seconds.append(timed(lambda t=twin: t.step(command)))
    theirs = package_branch_seconds(name, world, branch)
    row = {
        "world": name,
        "what": "fork of a node 5 deep and its first step, no simulator near, ms",
        "value": statistics.median(seconds) * 1e3,
    }
    yield row if theirs is None else {**row, "package's own way, ms": theirs * 1e3}


def deep_branch(world: TextGame, tasks: list[Any], rng: random.Random) -> TextGame:
    while True:
        branch = world.fork()
        branch.game = GameSpec()
        branch.reset(rng.choice(tasks[-3:]))
        for _ in range(5):
            if branch.is_over:
                break
            branch.step(rng.choice(branch.observation.admissible or ("look",)))
        if not branch.is_over:
            return branch


def package_branch_seconds(name: str, world: TextGame, branch: TextGame) -> float | None:
    """Return what the same costs with the package's own `clone` or `copy`; None: it has neither."""
    commands = [step.action for step in branch.trajectory.steps]
    if isinstance(world, TextWorldExpress):
        package = importlib.import_module("textworld_express")
        env = package.TextWorldExpressEnv(envStepLimit=100)
        parameters = ",".join(f"{key}={value}" for key, value in world.parameters.items())
        game = {"gameName": world.name_of_game, "gameParams": parameters}
        env.reset(seed=branch.task.data["seed"], gameFold="train", **game)
        return median_of_copies(env, commands, env.clone)
    if name == "textworld":
        textworld = importlib.import_module("textworld")
        infos = textworld.EnvInfos(admissible_commands=True, score=True)
        path = world.pool.host._find(branch.task.data)  # type: ignore[attr-defined]
        env = textworld.start(str(path), infos)
        env.reset()
        return median_of_copies(env, commands, env.copy)
    return None


def median_of_copies(env: Any, commands: list[str], copy: Callable[[], Any]) -> float:  # noqa: ANN401
    for command in commands:
        env.step(command)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        twin = copy()
        twin.step("look around")
        seconds.append(time.perf_counter() - began)
        twin.close()
    env.close()
    return statistics.median(seconds)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def resident_mb() -> tuple[float, float]:
    """Return the resident memory of this process and of its Java children, in MB."""
    own, java = os.getpid(), 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = dict(
                line.split(":", 1) for line in (folder / "status").read_text().splitlines()
            )
        except OSError:
            continue
        if fields["PPid"].strip() == str(own) and fields["Name"].strip() == "java":
            java += memory_mb(fields)
    own_fields = Path("/proc/self/status").read_text().splitlines()
    return memory_mb(dict(line.split(":", 1) for line in own_fields)), java


def live_objects_mb(world: TextGame) -> float:
    """Return what Java's objects take after a full collection, in MB: what a leak would raise."""
    process = getattr(world.pool.host, "_process", None)
    if process is None:
        return 0.0
    process.classes.java.lang.System.gc()
    runtime = process.classes.java.lang.Runtime.getRuntime()
    return (runtime.totalMemory() - runtime.freeMemory()) / 2**20


def memory_mb(fields: dict[str, str]) -> float:
    return int(fields.get("VmRSS", "0 kB").split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", nargs="+", choices=list(_EPISODES), default=list(_EPISODES))
    parser.add_argument("--episodes", type=int, help="of each world; default: a few seconds' worth")
    parser.add_argument("--steps", type=int, default=_STEPS, help="commands in an episode")
    parser.add_argument("--games", help="folder to keep TextWorld's games in; default: a new one")
    add_json_option(parser)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as fresh:
        for name in options.worlds:
            episodes = options.episodes or _EPISODES[name]
            try:
                rows += bench_world(name, episodes, options.steps, options.games or fresh)
            except MissingPackage as error:
                rows.append({"world": name, "left out": str(error)})
    show(rows, options.json)


if __name__ == "__main__":
    main()
