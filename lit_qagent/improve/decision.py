"""Whether a round's Q-model is accepted: only if validation tasks show that it acts better."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_qagent.evaluation.comparison import compare_runs, read_run


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A new Q-model against what acts now, on the same tasks and seeds.

    Attributes:
        new: Results folder of the new one.
        agent: The agent that is judged, in both folders.
        before: Results folder of the Q-model accepted last; None before the first.
        control: The agent of ``new`` that has to be beaten then.
    """

    new: Path
    agent: str
    before: Path | None
    control: str


def decide(contest: Contest) -> dict[str, Any]:
    """Return the outcome as JSON values.

    Returns:
        ``accepted`` and ``why``; ``reward`` and ``reward_before`` over all finished episodes;
        ``difference`` with ``mean``, ``low`` and ``high`` over the tasks that both have finished,
        ``p_value``, ``tasks`` and ``left_out`` (episodes that one of the two did not finish).

    Raises:
        StoreError: A folder is damaged, or the two do not hold the same tasks.
    """
    before = contest.before or contest.new
    rival = contest.agent if contest.before else contest.control
    name = f"{contest.agent} - {rival}"
    found = compare_runs(read_run(before), read_run(contest.new), [(rival, contest.agent)])
    row = found["agents"][name]
    accepted = row["verdict"] == "better"
    return {
        "accepted": accepted,
        "why": _why(row),
        "compared_with": f"{rival} of {before}",
        "reward": row["b"].get("reward"),
        "reward_before": row["a"].get("reward"),
        "difference": {key: row[key] for key in ("mean", "low", "high")},
        "p_value": row["p_value"],
        "tasks": row["tasks"],
        "left_out": row["excluded_episodes"],
    }


def _why(row: dict[str, Any]) -> str:
    """Say in words what the interval shows."""
    if not row["tasks"]:
        return "refused: no task was finished by both"
    if row["low"] is None:
        return "refused: one task alone gives no interval"
    interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
    if row["verdict"] == "better":
        return f"accepted: the 95 % interval {interval} lies above zero"
    if row["verdict"] == "worse":
        return f"refused: the 95 % interval {interval} lies below zero"
    return f"refused: the 95 % interval {interval} holds zero"
