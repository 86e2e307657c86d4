"""What happens at each depth: how agents decide there, and what an oracle would have gained."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lit_qagent.core.actions import canonical_command
from lit_qagent.evaluation.episodes import PlayedEpisode, PlayedStep


def decisions_by_depth(episodes: Iterable[PlayedEpisode]) -> list[dict[str, Any]]:
    """Return one row per depth of the finished episodes of one agent.

    Returns:
        ``depth`` (steps taken before), ``decisions``, ``invalid_rate``, ``distinct`` (mean number
        of different commands) and ``score_gain``: mean value of the executed action above the
        mean of all candidates, None if no values were computed.
    """
    steps: defaultdict[int, list[PlayedStep]] = defaultdict(list)
    for episode in episodes:
        if episode.failure is None:
            for depth, step in enumerate(episode.steps):
                steps[depth].append(step)
    return [
        {
            "depth": depth,
            "decisions": len(some),
            "invalid_rate": float(np.mean([not step.valid for step in some])),
            "distinct": float(np.mean([len(_distinct(step)) for step in some])),
            "score_gain": _mean_or_none([_gain(step) for step in some if step.scores]),
        }
        for depth, some in sorted(steps.items())
    ]


def regret_by_depth(
    episodes: Iterable[PlayedEpisode], oracle: Iterable[PlayedEpisode]
) -> list[dict[str, Any]]:
    """Return by how much an agent's actions fall short of the best one, by the oracle's values.

    The oracle has values where it was itself, so an agent's decision is measured as long as it has
    done what the oracle did up to there, on the same task and seed, and the oracle has a value for
    its command; thoughts may differ. At depth 0 that is nearly every task; deeper it is a part, and
    its size is said.

    Args:
        episodes: Episodes of one agent.
        oracle: Episodes of an agent whose scores are true returns.

    Returns:
        One row per depth: ``depth``, ``decisions`` measured, ``regret`` (mean of best true value
        minus that of the action taken) and ``best_taken`` (share without any regret).
    """
    known = {(e.task_id, e.seed): e.steps for e in oracle if e.failure is None}
    regrets: defaultdict[int, list[float]] = defaultdict(list)
    for episode in episodes:
        if episode.failure is None:
            theirs = known.get((episode.task_id, episode.seed), [])
            for depth, regret in _regrets(episode.steps, theirs):
                regrets[depth].append(regret)
    return [
        {
            "depth": depth,
            "decisions": len(some),
            "regret": float(np.mean(some)),
            "best_taken": float(np.mean([regret == 0 for regret in some])),
        }
        for depth, some in sorted(regrets.items())
    ]


def _regrets(
    ours: Sequence[PlayedStep], theirs: Sequence[PlayedStep]
) -> Iterable[tuple[int, float]]:
    for depth, (step, oracle) in enumerate(zip(ours, theirs, strict=False)):
        values = _values(oracle)
        command = canonical_command(step.action)
        taken = values.get(command)
        if taken is not None:
            yield depth, max(values.values()) - taken
        if command != canonical_command(oracle.action):
            return


def _values(step: PlayedStep) -> dict[str, float]:
    """Return command -> value, the highest of all candidates with that command."""
    values: dict[str, float] = {}
    if not step.scores:
        return values
    for text, score in zip(step.candidates, step.scores, strict=True):
        command = canonical_command(text)
        values[command] = max(score, values.get(command, score))
    return values


def _distinct(step: PlayedStep) -> set[str]:
    return {canonical_command(text) for text in step.candidates}


def _gain(step: PlayedStep) -> float:
    scores = step.scores or [0.0]
    return scores[step.chosen] - float(np.mean(scores))


def _mean_or_none(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
