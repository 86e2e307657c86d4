"""Whether a round's Q-model is accepted: only if validation tasks show that it acts better."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import PolicyFailure
from lit_qagent.evaluation.comparison import Run, compare_runs, read_run
from lit_qagent.evaluation.episodes import NO_ANSWER
from lit_qagent.evaluation.outcomes import outcome
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

    @property
    def rival(self) -> str:
        """The agent to beat."""
        return self.agent if self.before else self.control

    def runs(self) -> tuple[Run, Run]:
        """Read the run of the rival and that of the new one.

        Raises:
            StoreError: A folder is damaged.
        """
        return read_run(self.before or self.new), read_run(self.new)


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


def refuse_unanswered(contest: Contest, accept: Acceptance) -> None:
    """Stop where only answers that the policy did not give keep a decision from being made.

    A policy that was away is no fault of the Q-model: those episodes can be played again.

    Raises:
        PolicyFailure: Too many tasks lack an episode, and would not with these answers.
        StoreError: A folder is damaged.
    """
    if not accept.wait_for_answers:
        return
    old, new = contest.runs()
    missing = _missing(contest, old, new)
    if missing.share <= accept.max_missing:
        return
    if _missing(contest, old, new, answered=True).share > accept.max_missing:
        return
    failures = [one.failure for one in new.episodes if outcome(one) == NO_ANSWER]
    raise PolicyFailure(
        f"the policy gave no answer in {len(failures)} episodes, the last: {failures[-1]}; "
        f"episodes are missing on {missing.either} of {missing.tasks} validation tasks, more than "
        f"{_percent(accept)}. Mend that (start its server again, renew its key), and the same "
        "command plays them again; for prompts that a server will never answer, "
        "--accept.wait_for_answers false decides without them"
    )


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
    old, new = contest.runs()
    name = f"{contest.agent} - {contest.rival}"
    row = compare_runs(old, new, [(contest.rival, contest.agent)])["agents"][name]
    missing = _missing(contest, old, new)
    objection = _objection(row, missing, accept)
    return {
        "accepted": objection is None,
        "why": f"refused: {objection}"
        if objection
        else f"accepted: {_interval(row)} lies above zero",
        "compared_with": f"{contest.rival} of {old.folder}",
        "reward": row["b"].get("reward"),
        "reward_before": row["a"].get("reward"),
        "difference": {key: row[key] for key in ("mean", "low", "high")},
        "p_value": row["p_value"],
        "tasks": row["tasks"],
        "left_out": row["excluded_episodes"],
        "tasks_missing": missing.either,
    }


def _missing(contest: Contest, old: Run, new: Run, *, answered: bool = False) -> Missing:
    """Count the tasks of which a finished episode is missing; the runs share tasks and seeds.

    Args:
        contest: What is compared with what.
        old: The run of the rival.
        new: The new run.
        answered: Count as if the policy had answered everything that the new run asked.
    """
    seeds = set(old.settings["tasks"]["seeds"]) & set(new.settings["tasks"]["seeds"])
    ours = _finished(new, contest.agent, answered)
    # An earlier round's episodes are not played again.
    theirs = _finished(old, contest.rival, answered and contest.before is None)

    def num_without(done: set[tuple[str, int]]) -> int:
        tasks: list[str] = new.settings["task_ids"]
        return sum(any((task, seed) not in done for seed in seeds) for task in tasks)

    return Missing(
        tasks=len(new.settings["task_ids"]),
        either=num_without(ours & theirs),
        new=num_without(ours),
    )


def _finished(run: Run, agent: str, answered: bool) -> set[tuple[str, int]]:
    return {
        (one.task_id, one.seed)
        for one in run.of(agent)
        if one.failure is None or (answered and outcome(one) == NO_ANSWER)
    }


def _objection(row: dict[str, Any], missing: Missing, accept: Acceptance) -> str | None:
    """Say in words what speaks against the new agent; None if nothing does."""
    if not row["tasks"]:
        return "no task was finished by both"
    if missing.share > accept.max_missing:
        return (
            f"episodes are missing on {missing.either} of {missing.tasks} tasks (the new model's "
            f"on {missing.new}), and at most {_percent(accept)} of the tasks may lack any; "
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


def _percent(accept: Acceptance) -> str:
    return f"{100 * accept.max_missing:g} %"


def _interval(row: dict[str, Any]) -> str:
    return f"the 95 % interval [{row['low']:+.3f}, {row['high']:+.3f}]"
