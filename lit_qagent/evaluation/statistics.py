"""Numbers of many episodes, with intervals: pure functions on played episodes.

The unit is the task. Seeds are averaged within a task first, and the bootstrap resamples tasks, so
that many seeds on few tasks do not pretend to be many tasks. Failed episodes have no reward: they
are left out of every mean and counted; `failures_as_zero` says what that changes.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from lit_qagent.evaluation.episodes import PlayedEpisode
from lit_qagent.evaluation.significance import (
    ALPHA,
    minimum_detectable_difference,
    permutation_p_values,
)

LEVEL = 0.95
NUM_RESAMPLES = 10_000
_BATCH = 250

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over tasks with its bootstrap interval.

    Attributes:
        mean: The mean.
        low: Lower end of the 95 % interval; None with fewer than two tasks.
        high: Upper end, likewise.
    """

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class AgentSummary:
    """What one agent did.

    Attributes:
        tasks: Tasks with at least one finished episode.
        episodes: Finished episodes.
        failures: Episodes that failed; they are in no other number.
        dropped_steps: Steps left out of prompts, over all episodes.
        cut_candidates: Candidates cut by the token limit, over all episodes.
        estimates: Quantity (see `quantities`) -> mean over tasks with its interval; empty if no
            episode was finished.
    """

    tasks: int
    episodes: int
    failures: int
    dropped_steps: int
    cut_candidates: int
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Treatment minus control on the episodes that both have finished.

    Attributes:
        tasks: Tasks compared; 0 if the two share no finished episode.
        excluded_episodes: Episodes that only one of the two has finished.
        estimates: Quantity -> mean difference with its interval.
        p_values: Quantity -> p-value of the paired permutation test, not corrected.
        detectable: Quantity -> smallest true difference that so many tasks would show.
    """

    tasks: int
    excluded_episodes: int
    estimates: Mapping[str, Estimate]
    p_values: Mapping[str, float | None]
    detectable: Mapping[str, float | None]


def quantities(episode: PlayedEpisode, metrics: Collection[str]) -> dict[str, float]:
    """Return the numbers of one finished episode.

    Args:
        episode: A finished episode, so it has at least one step.
        metrics: The world's scores; an episode that ended without one scores 0 in it, as no
            answer was given.

    Returns:
        ``reward`` and ``success``, the metrics, ``steps``, ``invalid_rate`` (share of the
        episode's actions that the world could not carry out), ``tokens`` (prompt and generated)
        and ``generated_tokens``.
    """
    num_steps = len(episode.steps)
    return {
        **_earned(episode, metrics),
        "steps": float(num_steps),
        "invalid_rate": episode.num_invalid / num_steps,
        "tokens": float(episode.prompt_tokens + episode.generated_tokens),
        "generated_tokens": float(episode.generated_tokens),
    }


def metric_names(episodes: Iterable[PlayedEpisode]) -> list[str]:
    """Return the names of all scores that the world gave to some episode, in order."""
    return sorted({name for episode in episodes for name in episode.metrics})


def summarize(
    episodes: Sequence[PlayedEpisode], metrics: Collection[str], *, seed: int = 0
) -> AgentSummary:
    """Return the numbers of one agent.

    Args:
        episodes: All episodes of the agent, failed ones too.
        metrics: The world's scores, see `quantities`.
        seed: Seed of the bootstrap.
    """
    finished = [episode for episode in episodes if episode.failure is None]
    table = _task_table([(e.task_id, quantities(e, metrics)) for e in finished])
    return AgentSummary(
        tasks=_num_tasks(table),
        episodes=len(finished),
        failures=len(episodes) - len(finished),
        dropped_steps=sum(episode.dropped_steps for episode in episodes),
        cut_candidates=sum(episode.cut_candidates for episode in episodes),
        estimates=bootstrap_means(table, seed=seed),
    )


def failures_as_zero(
    episodes: Sequence[PlayedEpisode], metrics: Collection[str], *, seed: int = 0
) -> dict[str, Estimate]:
    """Return what one agent earned if its failed episodes count as having earned nothing.

    An agent that fails on what is hard looks better without those episodes than it is.

    Args:
        episodes: All episodes of the agent, failed ones too.
        metrics: The world's scores, see `quantities`.
        seed: Seed of the bootstrap.

    Returns:
        ``reward``, ``success`` and the metrics, as `summarize` estimates them; empty without any
        episode.
    """
    table = _task_table([(e.task_id, _earned(e, metrics)) for e in episodes])
    return bootstrap_means(table, seed=seed)


def compare(
    treatment: Sequence[PlayedEpisode],
    control: Sequence[PlayedEpisode],
    metrics: Collection[str],
    *,
    num_tests: int = 1,
    seed: int = 0,
) -> Difference:
    """Return treatment minus control by paired bootstrap and permutation over tasks.

    Both means of a resample are taken on the same tasks, which equals resampling the per-task
    differences. Only episodes of the same task and seed that both have finished are compared.

    Args:
        treatment: Episodes of one agent.
        control: Episodes of the other.
        metrics: The world's scores, see `quantities`.
        num_tests: How many comparisons this is one of.
        seed: Seed of the resampling.
    """
    ours, theirs = _finished(treatment), _finished(control)
    shared = [key for key in ours if key in theirs]
    rows = []
    for key in shared:
        a, b = quantities(ours[key], metrics), quantities(theirs[key], metrics)
        rows.append((key[0], {name: a[name] - b[name] for name in a}))
    table = _task_table(rows)
    return Difference(
        tasks=_num_tasks(table),
        excluded_episodes=len(ours) + len(theirs) - 2 * len(shared),
        estimates=bootstrap_means(table, seed=seed),
        p_values=permutation_p_values(table, seed=seed),
        detectable={
            name: minimum_detectable_difference(row, num_tests=num_tests)
            for name, row in table.items()
        },
    )


def bootstrap_means(
    table: Mapping[str, NDArray[np.float64]], *, seed: int = 0
) -> dict[str, Estimate]:
    """Return mean and 95 % percentile-bootstrap interval of every row.

    The naive equivalent: `NUM_RESAMPLES` times draw as many tasks as there are, with replacement,
    and take the mean; the interval lies between the 2.5 % and 97.5 % quantiles of those means.

    Args:
        table: Quantity -> one value per task; all quantities in the same order of tasks.
        seed: Seed of the resampling.
    """
    if not table or not _num_tasks(table):
        return {}
    values = np.stack(list(table.values()))  # [quantities, tasks]
    means = values.mean(axis=-1)
    if values.shape[-1] < 2:
        return {
            name: Estimate(mean=float(mean), low=None, high=None)
            for name, mean in zip(table, means, strict=True)
        }
    interval = bootstrap(
        (values,),
        np.mean,
        axis=-1,
        n_resamples=NUM_RESAMPLES,
        batch=_BATCH,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {
        name: Estimate(mean=float(mean), low=float(low), high=float(high))
        for name, mean, low, high in zip(table, means, interval.low, interval.high, strict=True)
    }


def verdict(estimate: Estimate, p_value: float | None) -> Verdict:
    """Say in plain words what a difference shows: something only if both of its tests say so.

    The bootstrap alone would call any two tasks of one sign a difference: their resamples never
    leave the values at hand.

    Args:
        estimate: The difference with its interval.
        p_value: Of the permutation test, corrected if it is one of several; None shows nothing.
    """
    if p_value is None or p_value > ALPHA:
        return "no difference shown"
    if estimate.low is not None and estimate.low > 0:
        return "better"
    if estimate.high is not None and estimate.high < 0:
        return "worse"
    return "no difference shown"


def _earned(episode: PlayedEpisode, metrics: Collection[str]) -> dict[str, float]:
    """Return reward, success and metrics of an episode; a failed one has earned nothing."""
    return {
        "reward": episode.reward,
        "success": float(episode.success),
        **{name: float(episode.metrics.get(name, 0.0)) for name in metrics},
    }


def _finished(episodes: Iterable[PlayedEpisode]) -> dict[tuple[str, int], PlayedEpisode]:
    return {(e.task_id, e.seed): e for e in episodes if e.failure is None}


def _task_table(
    rows: Iterable[tuple[str, Mapping[str, float]]],
) -> dict[str, NDArray[np.float64]]:
    """Average the rows of each task; return quantity -> one value per task, in order of their ids.

    Episodes end in any order; with one of its own the same episodes have the same intervals.
    """
    by_task: defaultdict[str, list[Mapping[str, float]]] = defaultdict(list)
    for task_id, row in rows:
        by_task[task_id].append(row)
    tasks = [by_task[task_id] for task_id in sorted(by_task)]
    names = list(tasks[0][0]) if tasks else []
    return {
        name: np.array([np.mean([row[name] for row in some]) for some in tasks]) for name in names
    }


def _num_tasks(table: Mapping[str, NDArray[np.float64]]) -> int:
    return next((len(values) for values in table.values()), 0)
