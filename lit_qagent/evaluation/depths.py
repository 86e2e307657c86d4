"""What happens at each depth: how agents decide there, and what an oracle would have gained."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from lit_qagent.core.actions import canonical_command
from lit_qagent.evaluation.episodes import PlayedEpisode, PlayedStep


def decisions_by_depth(episodes: Iterable[PlayedEpisode]) -> list[dict[str, Any]]:
    """Return one row per depth of the finished episodes of one agent.

    Returns:
        ``depth`` (steps taken before), ``decisions``, ``invalid_rate``, ``distinct`` (mean number
        of different commands) and ``score_gain``: mean value of the executed action above the
        mean of all candidates, over the decisions that have values; None without any.
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
    episodes: Iterable[PlayedEpisode], oracle: Sequence[PlayedEpisode]
) -> list[dict[str, Any]]:
    """Return by how much an agent's actions fall short of the best one, by the oracle's values.

    The oracle has values where it was itself, so an agent's decision is measured as long as it has
    done what the oracle did up to there, on the same task and seed, and the oracle has a value for
    its command; thoughts may differ. At depth 0 that is nearly every task; deeper it is a part, and
    its size is said.

    Values are means of sampled rollouts, and the highest of several noisy values is too high. If
    the oracle allows it (`is_cross_fitted`), one half of the rollouts therefore says which command
    is best and the other half what it is worth, both ways averaged. What remains is a bias
    downwards, as half of the rollouts may miss the best command. Otherwise all rollouts say both,
    and noise raises the regret.

    Args:
        episodes: Episodes of one agent.
        oracle: Episodes of an agent whose scores are mean true returns.

    Returns:
        One row per depth: ``depth``, ``decisions`` measured, ``regret`` (mean of the best value
        minus that of the action taken; below 0 by chance if cross-fitted) and ``best_taken``
        (share whose action has the highest mean of all rollouts).
    """
    cross_fit = is_cross_fitted(oracle)
    known = {(e.task_id, e.seed): e.steps for e in oracle if e.failure is None}
    measured: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for episode in episodes:
        if episode.failure is None:
            theirs = known.get((episode.task_id, episode.seed), [])
            for depth, command, step in _known_decisions(episode.steps, theirs):
                regret = _regret(command, step, cross_fit=cross_fit)
                measured[depth].append((regret, _is_best(command, step)))
    return [
        {
            "depth": depth,
            "decisions": len(some),
            "regret": float(np.mean([regret for regret, _ in some])),
            "best_taken": float(np.mean([is_best for _, is_best in some])),
        }
        for depth, some in sorted(measured.items())
    ]


def is_cross_fitted(oracle: Iterable[PlayedEpisode]) -> bool:
    """Return whether an oracle's episodes keep at least two rollouts of each candidate."""
    steps = [
        step for e in oracle if e.failure is None for step in e.steps if step.scores is not None
    ]
    return bool(steps) and all(
        step.returns is not None and min(map(len, step.returns)) > 1 for step in steps
    )


def _known_decisions(
    ours: Sequence[PlayedStep], theirs: Sequence[PlayedStep]
) -> Iterable[tuple[int, str, PlayedStep]]:
    """Give the depth, our command and the oracle's step of each decision that it can measure."""
    for depth, (step, oracle) in enumerate(zip(ours, theirs, strict=False)):
        command = canonical_command(step.action)
        if command in _values(oracle, oracle.scores):
            yield depth, command, oracle
        if command != canonical_command(oracle.action):
            return


def _regret(command: str, oracle: PlayedStep, *, cross_fit: bool) -> float:
    if not cross_fit or oracle.returns is None:
        values = _values(oracle, oracle.scores)
        return _worth_of_best(values, values) - values[command]
    first, second = (
        _values(oracle, [fmean(returns[start::2]) for returns in oracle.returns])
        for start in (0, 1)
    )
    return fmean(
        _worth_of_best(judge, values) - values[command]
        for judge, values in ((first, second), (second, first))
    )


def _worth_of_best(judge: Mapping[str, float], values: Mapping[str, float]) -> float:
    """Return what the commands are worth on average that a judge finds best."""
    highest = max(judge.values())
    return fmean(values[command] for command, value in judge.items() if value == highest)


def _is_best(command: str, oracle: PlayedStep) -> bool:
    values = _values(oracle, oracle.scores)
    return values[command] == max(values.values())


def _values(step: PlayedStep, scores: Sequence[float] | None) -> dict[str, float]:
    """Return command -> value, the mean of all candidates with that command.

    The mean, as the highest of them would be the luckiest one.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    if scores:
        for text, score in zip(step.candidates, scores, strict=True):
            found[canonical_command(text)].append(score)
    return {command: fmean(some) for command, some in found.items()}


def _distinct(step: PlayedStep) -> set[str]:
    return {canonical_command(text) for text in step.candidates}


def _gain(step: PlayedStep) -> float:
    scores = step.scores or [0.0]
    return scores[step.chosen] - float(np.mean(scores))


def _mean_or_none(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
