"""One step of a branch of the world, with a limit on its time."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.core.records import Observation, Step
from lit_qagent.environments.base import Environment

T = TypeVar("T")

TIMED_OUT = "The world did not answer in time."


class Branch(NamedTuple):
    """A child before it is in the tree: its step and its own branch of the world."""

    step: Step
    environment: Environment


class StepTimedOut(BaseException):
    """A step of the world took longer than it may; no `except Exception` of a world stops it."""


async def act(environment: Environment, action: str, timeout_s: float | None = None) -> Branch:
    """Step a branch; of the observation only the text is kept, as in the store.

    A step that takes too long ends the branch like the step limit does, and is marked invalid.

    Args:
        environment: The branch.
        action: What to do.
        timeout_s: Seconds it may take; None waits for ever.

    Raises:
        EnvironmentFailure: The world broke.
    """
    try:
        step = await _step(environment, action, timeout_s)
    except StepTimedOut:
        return Branch(_timed_out(action), environment)
    seen = step.observation
    if seen.admissible is None and seen.pattern is None:
        return Branch(step, environment)
    kept = Step(
        action=step.action,
        observation=Observation(text=seen.text),
        reward=step.reward,
        terminated=step.terminated,
        truncated=step.truncated,
        valid=step.valid,
        metrics=step.metrics,
    )
    return Branch(kept, environment)


def in_time(do: Callable[[], T], timeout_s: float | None, what: str) -> T:
    """Do what no tree can go on without, such as a reset.

    Args:
        do: What to do.
        timeout_s: Seconds it may take; None waits for ever.
        what: Name of it, for the error.

    Raises:
        EnvironmentFailure: It takes too long.
    """
    try:
        return do() if timeout_s is None else _do(do, timeout_s)
    except StepTimedOut:
        raise EnvironmentFailure(
            f"{what} took longer than step_timeout_s ({timeout_s:g} s); raise it, or see what the "
            "world waits for"
        ) from None


async def act_all(
    above: Environment, actions: Sequence[str], timeout_s: float | None
) -> list[Branch]:
    """Step one fork per action; those of a world that blocks at the same time."""
    if not above.blocks:
        return [await act(above.fork(), action, timeout_s) for action in actions]
    steps = [act(above.fork(), action, timeout_s) for action in actions]
    return list(await asyncio.gather(*steps))


async def _step(environment: Environment, action: str, timeout_s: float | None) -> Step:
    if timeout_s is None:
        return await environment.act(action)
    if environment.blocks:
        return await _act_in_time(environment, action, timeout_s)
    return _do(lambda: environment.step(action), timeout_s)


async def _act_in_time(environment: Environment, action: str, timeout_s: float) -> Step:
    acting = asyncio.ensure_future(environment.act(action))
    try:
        done, _ = await asyncio.wait([acting], timeout=timeout_s)
    finally:
        acting.cancel()  # which changes nothing once it is done
    if not done:
        raise StepTimedOut
    return acting.result()


def _do(do: Callable[[], T], timeout_s: float) -> T:
    """Do something within a time; raise `StepTimedOut` if it takes longer."""
    if threading.current_thread() is not threading.main_thread():
        return _do_beside(do, timeout_s)
    with _limit(timeout_s):
        return do()


def _do_beside(do: Callable[[], T], timeout_s: float) -> T:
    """Work in a thread while this one waits, as signals reach the main thread alone.

    What takes too long is left behind in its thread.
    """
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def work() -> None:
        try:
            done.set_result(do())
        except BaseException as error:  # handed to the thread that waits
            done.set_exception(error)

    threading.Thread(target=work, name="world-step", daemon=True).start()
    if not wait([done], timeout_s).done:
        raise StepTimedOut
    return done.result()


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise `StepTimedOut` in the main thread when the time is over.

    A signal costs microseconds, a thread per step would cost more than the search itself.
    """
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise(number: int, frame: object) -> None:
    raise StepTimedOut


def _timed_out(action: str) -> Step:
    return Step(action=action, observation=Observation(text=TIMED_OUT), truncated=True, valid=False)
