"""Whether a round's Q-model is accepted: only if validation tasks show that it acts better."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_qagent.evaluation.comparison import Run, compare_runs, read_run
from lit_qagent.evaluation.significance import ALPHA
from lit_qagent.improve.spec import Acceptance


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


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Validation tasks that are not compared on all of their seeds.

    Attributes:
        tasks: Tasks planned.
        either: Tasks of which an episode of either agent is missing.
        new: Those of the new agent.
    """

    tasks: int
    either: int
    new: int

    @property
    def share(self) -> float:
        """Share of the tasks."""
        return self.either / self.tasks


def decide(contest: Contest, accept: Acceptance) -> dict[str, Any]:
    """Return the outcome as JSON values.

    Args:
        contest: What is compared with what.
        accept: What the decision has to rest on.

    Returns:
        ``accepted`` and ``why``; ``reward`` and ``reward_before`` over all finished episodes;
        ``difference`` with ``mean``, ``low`` and ``high`` over the tasks that both have finished,
        ``p_value``, ``tasks``, ``left_out`` (episodes that one of the two did not finish) and
        ``tasks_missing`` (tasks of which an episode is missing).

    Raises:
        StoreError: A folder is damaged, or the two do not hold the same tasks.
    """
    before = contest.before or contest.new
    rival = contest.agent if contest.before else contest.control
    name = f"{contest.agent} - {rival}"
    old, new = read_run(before), read_run(contest.new)
    row = compare_runs(old, new, [(rival, contest.agent)])["agents"][name]
    missing = _missing(old, rival, new, contest.agent)
    objection = _objection(row, missing, accept)
    return {
        "accepted": objection is None,
        "why": f"refused: {objection}"
        if objection
        else f"accepted: {_interval(row)} lies above zero",
        "compared_with": f"{rival} of {before}",
        "reward": row["b"].get("reward"),
        "reward_before": row["a"].get("reward"),
        "difference": {key: row[key] for key in ("mean", "low", "high")},
        "p_value": row["p_value"],
        "tasks": row["tasks"],
        "left_out": row["excluded_episodes"],
        "tasks_missing": missing.either,
    }


def _missing(old: Run, rival: str, new: Run, agent: str) -> Missing:
    """Count the tasks of which a finished episode is missing; the runs share tasks and seeds."""
    seeds = set(old.settings["tasks"]["seeds"]) & set(new.settings["tasks"]["seeds"])
    ours, theirs = _finished(new, agent), _finished(old, rival)

    def num_without(done: set[tuple[str, int]]) -> int:
        tasks: list[str] = new.settings["task_ids"]
        return sum(any((task, seed) not in done for seed in seeds) for task in tasks)

    return Missing(
        tasks=len(new.settings["task_ids"]),
        either=num_without(ours & theirs),
        new=num_without(ours),
    )


def _finished(run: Run, agent: str) -> set[tuple[str, int]]:
    return {(one.task_id, one.seed) for one in run.of(agent) if one.failure is None}


def _objection(row: dict[str, Any], missing: Missing, accept: Acceptance) -> str | None:
    """Say in words what speaks against the new agent; None if nothing does."""
    if not row["tasks"]:
        return "no task was finished by both"
    if missing.share > accept.max_missing:
        allowed = f"{100 * accept.max_missing:g} %"
        return (
            f"episodes are missing on {missing.either} of {missing.tasks} tasks (the new model's "
            f"on {missing.new}), and at most {allowed} of the tasks may lack any; "
            "see why they failed in the report"
        )
    if row["tasks"] < accept.min_tasks:
        return f"{row['tasks']} tasks are compared, fewer than {accept.min_tasks}"
    if row["verdict"] == "better":
        return None
    if row["low"] > 0:
        p_value = f"the permutation test's p is {row['p_value']:.3f}, above {ALPHA:g}"
        return f"{_interval(row)} lies above zero, but {p_value}"
    if row["high"] < 0:
        return f"{_interval(row)} lies below zero"
    return f"{_interval(row)} holds zero"


def _interval(row: dict[str, Any]) -> str:
    return f"the 95 % interval [{row['low']:+.3f}, {row['high']:+.3f}]"
