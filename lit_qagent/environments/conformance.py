"""What every world must do, as checks that also a user's own world can be put through.

``check_environment(MyWorld(...), split="train")`` raises an AssertionError that says what broke.
"""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.core.records import Observation, Step, Task, Trajectory
from lit_qagent.core.text import clean_text
from lit_qagent.environments.base import Environment

__all__ = ["MALFORMED_ACTIONS", "Commands", "check_environment", "draw_admissible"]

Commands = Callable[[Observation, random.Random], str]

# No world may understand these, and none may break on them.
MALFORMED_ACTIONS = (
    "",
    "   \n\t ",
    "no brackets at all",
    "Thought: I only think and never act.",
    "Action:",
    "Action: ",
    "frobnicate[x]",
    "frobnicate[[a][b[c]]]",
    "frobnicate[a: b: c]: d",
    "Thought: odd: very odd\nAction: frobnicate[a: b]",
    "[]",
    "]][[",
    "frobnicate[" + "very long " * 2000 + "]",
    "fr\u00f6bnicate[\u65e5\u672c\u8a9e \U0001f600 \u202e]",
    "\x00\x1b[31m",
)
_ODD_ARGUMENTS = (
    "",
    "[a[b]]",
    "a: b: c",
    "long " * 1000,
    "\u65e5\u672c\u8a9e \U0001f600",
    "(",
    "*+?\\",
    "]",
)


def check_environment(
    environment: Environment,
    split: str,
    *,
    num_tasks: int = 5,
    seed: int = 0,
    commands: Commands | None = None,
) -> None:
    """Run every check on the first tasks of a split.

    Args:
        environment: The world; it is forked, not touched.
        split: Where the tasks come from.
        num_tasks: Tasks to play; fewer if the split has fewer.
        seed: Decides the random walks.
        commands: Draws a command that may be tried after an observation; needed where a world
            does not list its commands.

    Raises:
        AssertionError: The world breaks the contract; the message says where.
    """
    draw = commands or draw_admissible
    check_tasks(environment, split)
    check_examples(environment)
    for number, task in enumerate(environment.tasks(split)[:num_tasks]):
        walk_seed = seed + number
        recorded = check_walk(environment, task, draw, walk_seed)
        check_replay(environment, task, recorded)
        check_act(environment, task, recorded)
        check_branches(environment, task, draw, walk_seed)
        check_reset(environment, task, recorded, draw, walk_seed)
        check_malformed(environment, task, recorded)
        check_step_limit(environment, task)


def draw_admissible(observation: Observation, rng: random.Random) -> str:
    """Draw one of the listed commands.

    Raises:
        ConfigError: The world lists none here.
    """
    if not observation.admissible:
        raise ConfigError(
            "this world does not list its commands after every observation; "
            "give check_environment a `commands` function"
        )
    return rng.choice(observation.admissible)


def check_tasks(environment: Environment, split: str) -> None:
    """Tasks come in a fixed order with unique ids, and an unknown split is refused."""
    tasks = list(environment.tasks(split))
    _require(bool(tasks), f"split {split!r} has no tasks")
    _require(tasks == list(environment.tasks(split)), "tasks(split) changes between two calls")
    ids = [task.task_id for task in tasks]
    _require(len(set(ids)) == len(ids), f"split {split!r} has two tasks with one task_id")
    _require(all(task.split == split for task in tasks), f"a task of {split!r} names another split")
    _require(environment.data_hash() == environment.fork().data_hash(), "data_hash changes")
    try:
        environment.tasks("no such split")
    except ConfigError as error:
        _require(split in str(error), f"the error for an unknown split does not name {split!r}")
    else:
        raise AssertionError("tasks('no such split') must raise ConfigError")


def check_examples(environment: Environment) -> None:
    """Every example is an ended episode of full reward without an invalid action."""
    for example in environment.examples():
        where = f"example {example.task_id!r}"
        _require(example.success and example.steps[-1].terminated, f"{where} is not solved")
        _require(example.num_invalid == 0, f"{where} has an invalid action")


def check_walk(environment: Environment, task: Task, draw: Commands, seed: int) -> Trajectory:
    """Rewards, flags and listed commands are right along a random walk; return the walk."""
    branch, rng = _fresh(environment, task), random.Random(seed)
    while not branch.is_over:
        _check_admissible(branch)
        step = branch.step(draw(branch.observation, rng))
        _check_step(step, len(branch.actions), branch.max_steps)
    _require(len(branch.actions) <= branch.max_steps, "an episode is longer than max_steps")
    for late in (branch, branch.fork()):
        _expect_over(late)
    return branch.trajectory


def check_replay(environment: Environment, task: Task, recorded: Trajectory) -> None:
    """The same actions give the same observations, rewards and metrics."""
    branch = _fresh(environment, task)
    for number, step in enumerate(recorded.steps):
        again = branch.step(step.action)
        _require(again == step, f"replaying step {number} of {task.task_id!r} gave {again}")
    _require(branch.trajectory == recorded, "replaying gave another trajectory")


def check_act(environment: Environment, task: Task, recorded: Trajectory) -> None:
    """A world that blocks can be played from threads: its resources belong to none."""
    if not environment.blocks:
        return
    branch = _fresh(environment, task)
    with ThreadPoolExecutor(1) as pool:  # an event loop of its own, also below a running one
        for number, step in enumerate(recorded.steps):
            again = pool.submit(asyncio.run, branch.act(step.action)).result()
            _require(again == step, f"step {number} of {task.task_id!r} in a thread gave {again}")


def check_branches(environment: Environment, task: Task, draw: Commands, seed: int) -> None:
    """What a sibling does changes no other branch: not its pages, answers or purchases."""
    branch, rng = _fresh(environment, task), random.Random(seed)
    while not branch.is_over:
        action = draw(branch.observation, rng)
        alone = branch.fork().step(action)
        before = branch.trajectory
        twin, sibling = branch.fork(), branch.fork()
        _play_out(sibling, draw, random.Random(rng.random()))
        where = f"{task.task_id!r} after {len(branch.actions)} steps"
        _require(branch.trajectory == before, f"a fork's actions changed its parent: {where}")
        _require(twin.step(action) == alone, f"a sibling's actions changed a branch: {where}")
        _require(branch.step(action) == alone, f"parent and fork disagree: {where}")
        _require(twin.trajectory == branch.trajectory, f"equal branches differ: {where}")


def check_reset(
    environment: Environment, task: Task, recorded: Trajectory, draw: Commands, seed: int
) -> None:
    """Nothing of an earlier episode is left after reset."""
    branch = _fresh(environment, task)
    _play_out(branch, draw, random.Random(seed + 1))
    first = branch.reset(task)
    _require(first == recorded.first_observation, "reset gives another first observation")
    _require(branch.actions == () and not branch.is_over, "reset keeps actions")
    for step in recorded.steps:
        _require(branch.step(step.action) == step, f"an earlier episode changed {task.task_id!r}")


def check_malformed(environment: Environment, task: Task, recorded: Trajectory) -> None:
    """Malformed actions are observations that cost a step; odd arguments never raise."""
    branch = _fresh(environment, task)
    for step in (None, *recorded.steps):
        if step is not None:
            branch.step(step.action)
        if branch.is_over:
            return
        for action in MALFORMED_ACTIONS:
            _check_refused(branch, action)
        for verb in _verbs(recorded):
            for argument in _ODD_ARGUMENTS:
                odd = branch.fork()
                odd.step(f"{verb}[{argument}]")
                _require(len(odd.actions) == len(branch.actions) + 1, "an action cost no step")


def check_step_limit(environment: Environment, task: Task) -> None:
    """Without a legal action an episode is truncated at the limit, with reward 0."""
    branch = _fresh(environment, task)
    for _ in range(branch.max_steps):
        _require(not branch.is_over, "an episode ended before its step limit")
        branch.step("frobnicate[x]")
    last = branch.trajectory.steps[-1]
    _require(last.truncated and not last.terminated, "the step limit must truncate")
    _require(last.reward == 0, "a truncated episode must have reward 0")
    _expect_over(branch)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _fresh(environment: Environment, task: Task) -> Environment:
    branch = environment.fork()
    branch.reset(task)
    return branch


def _play_out(branch: Environment, draw: Commands, rng: random.Random) -> None:
    while not branch.is_over:
        branch.step(draw(branch.observation, rng))


def _check_step(step: Step, num_steps: int, max_steps: int) -> None:
    _require(0 <= step.reward <= 1, f"reward must be in [0, 1], got {step.reward}")
    _require(step.terminated or step.reward == 0, "a reward came before the end")
    _require(not (step.terminated and step.truncated), "terminated and truncated exclude another")
    _require(step.truncated <= (num_steps == max_steps), "truncated before the step limit")


def _check_admissible(branch: Environment) -> None:
    for command in branch.observation.admissible or ():
        step = branch.fork().step(command)
        _require(step.valid, f"{command!r} is listed as admissible but refused")


def _check_refused(branch: Environment, action: str) -> None:
    twin = branch.fork()
    step = twin.step(action)
    shown = repr(action[:60])
    _require(not step.valid, f"malformed action {shown} counts as valid")
    _require(not step.terminated and step.reward == 0, f"malformed action {shown} ended or paid")
    _require(
        step.observation.text.startswith("Invalid action"),
        f"malformed action {shown} must be answered with 'Invalid action ...'",
    )
    text = step.observation.text
    _require(text == clean_text(text), f"the answer to {shown} repeats its control characters")
    _require(len(twin.actions) == len(branch.actions) + 1, f"malformed {shown} cost no step")
    current = branch.observation
    same = (step.observation.admissible, step.observation.pattern)
    _require(same == (current.admissible, current.pattern), f"{shown} changed what is legal")


def _expect_over(branch: Environment) -> None:
    try:
        branch.step("frobnicate[x]")
    except EnvironmentFailure:
        return
    raise AssertionError("a step after the end must raise EnvironmentFailure")


def _verbs(recorded: Trajectory) -> list[str]:
    """Return the verbs of the walk's commands."""
    return list(dict.fromkeys(step.action.split("[")[0] for step in recorded.steps))
