"""Plays many episodes at once: a sliding window, every finished one handed over at once."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_qagent.agents.episode import EpisodeCut
from lit_qagent.agents.guided import GuidedAgent
from lit_qagent.agents.trials import SingleTrial, Trials
from lit_qagent.core.errors import EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import Task
from lit_qagent.environments.base import Environment
from lit_qagent.evaluation.episodes import NO_ANSWER, EpisodeKey, PlayedEpisode
from lit_qagent.evaluation.outcomes import outcome

DEAD_AFTER = 20


@dataclass(frozen=True, kw_only=True)
class PlannedEpisode:
    """An episode to play: who, what, and with which seed."""

    agent: str
    task: Task
    seed: int

    @property
    def key(self) -> EpisodeKey:
        """What tells this episode from the others."""
        return EpisodeKey(self.agent, self.task.task_id, self.seed)


def plan_episodes(
    agents: Sequence[str], tasks: Sequence[Task], seeds: Sequence[int]
) -> list[PlannedEpisode]:
    """Return every episode; the agents alternate, so that an early stop compares them fairly."""
    return [
        PlannedEpisode(agent=agent, task=task, seed=seed)
        for seed in seeds
        for task in tasks
        for agent in agents
    ]


async def play_episodes(
    planned: Sequence[PlannedEpisode],
    agents: Mapping[str, GuidedAgent],
    environment: Environment,
    *,
    concurrency: int,
    on_end: Callable[[PlayedEpisode], None],
    trials: Mapping[str, Trials] | None = None,
) -> None:
    """Play all planned episodes, at most ``concurrency`` at once; close the policies at the end.

    A slow episode delays no other: each of the workers takes the next one as soon as it is free.

    Args:
        planned: What to play, in order of start.
        agents: Name -> agent.
        environment: The world; every episode plays in a fork of it.
        concurrency: Episodes in flight.
        on_end: Called for each episode as soon as it has ended, or has failed for want of an
            answer from the policy or because the world broke. Any other error ends the run.
        trials: Name -> how often the agent may try a task, for those that try more than once.

    Raises:
        PolicyFailure: So many episodes in a row got no answer (`DEAD_AFTER`, or twice as many as
            are in flight) that the policy must be dead; trying the rest would waste hours.
    """
    trials = trials or {}
    hand_over = _Watch(on_end, max(DEAD_AFTER, 2 * concurrency))
    waiting = iter(planned)
    workers = [
        asyncio.create_task(_work(waiting, agents, environment, hand_over, trials))
        for _ in range(min(concurrency, len(planned)))
    ]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for policy in {id(agent.policy): agent.policy for agent in agents.values()}.values():
            await policy.close()


def run_to_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine from plain code, also where an event loop runs already (a notebook).

    In the second case it runs in a thread of its own. Gradient mode belongs to the thread, so
    whatever calls a model inside must switch gradients off by itself.

    Raises:
        KeyboardInterrupt: On Ctrl-C, after the coroutine has been cancelled and has cleaned up.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    _run_in_thread(coroutine)


async def _work(
    waiting: Iterator[PlannedEpisode],
    agents: Mapping[str, GuidedAgent],
    environment: Environment,
    on_end: Callable[[PlayedEpisode], None],
    trials: Mapping[str, Trials],
) -> None:
    for planned in waiting:
        tries = trials.get(planned.agent, SingleTrial())
        on_end(await _play(planned, agents[planned.agent], environment, tries))


class _Watch:
    """Hands episodes over and counts those in a row that got no answer from the policy."""

    def __init__(self, on_end: Callable[[PlayedEpisode], None], dead_after: int) -> None:
        self._on_end = on_end
        self._dead_after = dead_after
        self._in_a_row = 0

    def __call__(self, episode: PlayedEpisode) -> None:
        self._on_end(episode)
        self._in_a_row = self._in_a_row + 1 if outcome(episode) == NO_ANSWER else 0
        if self._in_a_row >= self._dead_after:
            raise PolicyFailure(
                f"{self._in_a_row} episodes in a row got no answer from the policy, the last one: "
                f"{episode.failure}; all finished episodes are kept, mend that (start the policy's "
                "server again, renew its key) and give the same command to play the rest"
            )


async def _play(
    planned: PlannedEpisode, agent: GuidedAgent, environment: Environment, trials: Trials
) -> PlayedEpisode:
    began = time.monotonic()
    try:
        episode = await trials.play(agent, environment, planned.task, seed=planned.seed)
    except EpisodeCut as cut:
        spent = time.monotonic() - began
        cause = cut.__cause__ or cut
        return PlayedEpisode.failed(planned.key, cause, seconds=spent, episode=cut.episode)
    except (PolicyFailure, EnvironmentFailure) as error:  # before anything was played
        return PlayedEpisode.failed(planned.key, error, seconds=time.monotonic() - began)
    return PlayedEpisode.finished(planned.key, episode, seconds=time.monotonic() - began)


def _run_in_thread(coroutine: Coroutine[Any, Any, None]) -> None:
    errors: list[BaseException] = []
    ended = threading.Event()  # an interrupted Thread.join takes the thread for stopped
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except BaseException as error:  # handed to the caller's thread, which raises it
            errors.append(error)
        finally:
            loop.close()
            ended.set()

    threading.Thread(target=run, name="episodes", daemon=True).start()
    try:
        ended.wait()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(task.cancel)
        ended.wait()
        raise
    if errors:
        raise errors[0]
