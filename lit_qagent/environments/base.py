"""The contract of a world: every environment object is one branch of it.

A world is one subclass of `Environment`. It keeps everything that changes while an episode runs in
``self._state`` (anything that `copy.deepcopy` copies) and everything else unchanged after
construction; then `fork` needs no code of its own. A world that cannot copy its state overrides
`fork` and replays `actions` instead.
"""

import asyncio
import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from lit_qagent.core.actions import parse_command
from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.core.records import Observation, Step, Task, Trajectory
from lit_qagent.core.text import clean_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one command did; `Environment.step` turns it into a `Step`.

    Attributes:
        observation: What the world says now.
        reward: Outcome reward in [0, 1]; only with ``terminated``.
        terminated: The world ended the episode.
        valid: False if the command could not be carried out (and changed nothing).
        metrics: World-specific scores at the end.
    """

    observation: Observation
    reward: float = 0.0
    terminated: bool = False
    valid: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)


class Environment(ABC):
    """One branch of a world; `reset` starts an episode, `step` acts, `fork` branches.

    A fresh, never reset object also stands for the world as a whole (tasks, instructions, hashes);
    forks of it share its read-only data.

    Args:
        max_steps: Step limit; the step that reaches it is ``truncated`` unless the world ends.
    """

    name: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, *, max_steps: int) -> None:
        if max_steps < 1:
            raise ConfigError(f"max_steps must be >= 1, got {max_steps}")
        self.max_steps = max_steps
        self._task: Task | None = None
        self._steps: tuple[Step, ...] = ()
        self._state: Any = None

    @abstractmethod
    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split in a fixed order.

        Raises:
            ConfigError: No such split; the message names the splits there are.
        """

    @abstractmethod
    def instructions(self) -> str:
        """Return what the agent is told about the world and its commands (a system message)."""

    @abstractmethod
    def data_hash(self) -> str:
        """Return a hash of everything that decides tasks, observations and rewards."""

    @abstractmethod
    def _start(self, task: Task) -> Observation:
        """Set ``self._state`` for the task and return the first observation."""

    @abstractmethod
    def _act(self, command: str) -> Outcome:
        """Carry out one command; an illegal one gives ``valid=False``, never an exception."""

    def examples(self) -> Sequence[Trajectory]:
        """Return solved episodes to show the agent, ReAct messages as actions; may be empty."""
        return ()

    def _metrics_at_limit(self) -> Mapping[str, float]:
        """Return the metrics of an episode that the step limit ends; the same names as usual."""
        return {}

    def _invalid_observation(self, command: str) -> Observation:
        """Return the observation after an action without a legal command."""
        current = self.observation
        plain = clean_text(command)
        shown = plain if len(plain) <= 80 else plain[:77] + "..."
        return Observation(
            text=f"Invalid action: {shown}",
            admissible=current.admissible,
            pattern=current.pattern,
        )

    @property
    def task(self) -> Task:
        """The task of the episode.

        Raises:
            EnvironmentFailure: `reset` was not called yet.
        """
        if self._task is None:
            raise EnvironmentFailure(f"{self.name}: call reset(task) before anything else")
        return self._task

    @property
    def actions(self) -> tuple[str, ...]:
        """The agent's actions since `reset`."""
        return tuple(step.action for step in self._steps)

    @property
    def observation(self) -> Observation:
        """The last thing the world said."""
        return self.trajectory.steps[-1].observation if self._steps else self._first

    @property
    def trajectory(self) -> Trajectory:
        """Everything since `reset`."""
        return Trajectory(
            task_id=self.task.task_id, first_observation=self._first, steps=self._steps
        )

    @property
    def is_over(self) -> bool:
        """True once the episode has ended."""
        return bool(self._steps) and self._steps[-1].is_last

    def reset(self, task: Task) -> Observation:
        """Start an episode and forget any earlier one.

        Raises:
            EnvironmentFailure: The world lost what it needs, such as a server or a file.
        """
        self._task, self._steps, self._state = task, (), None
        with self._reaching(f"starting task {task.task_id!r}"):
            self._first = self._start(task)
        return self._first

    def step(self, action: str) -> Step:
        """Carry out one action; what cannot be parsed or is illegal costs a step.

        Raises:
            EnvironmentFailure: The episode has ended, or was never started; or the world lost what
                it needs, which says nothing about the action.
        """
        if self.is_over:
            raise EnvironmentFailure(
                f"{self.name}: the episode of task {self.task.task_id!r} is over; call reset"
            )
        # A listed command means itself, whatever brackets and labels stand in it.
        is_listed = action in (self.observation.admissible or ())
        command = action if is_listed else parse_command(action)
        with self._reaching("a step"):
            outcome = self._act(command) if command else None
        if outcome is None or not outcome.valid:
            observation = outcome.observation if outcome else self._invalid_observation(action)
            outcome = Outcome(observation=observation, valid=False)
        truncated = not outcome.terminated and len(self._steps) + 1 >= self.max_steps
        step = Step(
            action=action,
            observation=outcome.observation,
            reward=outcome.reward,
            terminated=outcome.terminated,
            truncated=truncated,
            valid=outcome.valid,
            metrics=self._metrics_at_limit() if truncated else outcome.metrics,
        )
        self._steps += (step,)
        return step

    @contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # time-outs and lost connections too
            message = f"{self.name}: {what} failed ({type(error).__name__}: {error})"
            raise EnvironmentFailure(message) from error

    @property
    def blocks(self) -> bool:
        """True if a step may wait for something outside the program, such as a network."""
        return False

    async def act(self, action: str) -> Step:
        """Do what `step` does; a world that blocks does it in a thread, so others go on."""
        if not self.blocks:
            return self.step(action)
        done: Future[Step] = Future()
        done.set_running_or_notify_cancel()
        # A daemon, as the end of the program must not wait for a network.
        threading.Thread(target=self._step_into, args=(done, action), daemon=True).start()
        return await asyncio.wrap_future(done)

    def _step_into(self, done: Future[Step], action: str) -> None:
        try:
            done.set_result(self.step(action))
        except BaseException as error:  # handed to the coroutine, which raises it
            done.set_exception(error)

    def fork(self) -> Self:
        """Return an independent branch at the same state."""
        twin = copy.copy(self)
        twin._state = copy.deepcopy(self._state)
        return twin

    def settings(self) -> dict[str, Any]:
        """Return what identifies this world in manifests and reports."""
        return {
            "name": self.name,
            "version": self.version,
            "max_steps": self.max_steps,
            "data_hash": self.data_hash(),
        }
