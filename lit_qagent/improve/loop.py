"""The loop: each round is collect, pairs, fit and predict, then a decision."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_qagent.command_line import EXIT_INTERRUPTED
from lit_qagent.improve.configs import (
    Config,
    RoundPlan,
    read_configs,
    round_configs,
    treatment_and_control,
    write_configs,
)
from lit_qagent.improve.cost import (
    BudgetSpent,
    collect_limits,
    cost_text,
    count_cost,
    refuse_overspending,
    round_cost,
)
from lit_qagent.improve.decision import Contest, decide, refuse_unanswered
from lit_qagent.improve.record import Record, lock_folder, open_record, round_folder
from lit_qagent.improve.spec import Improve
from lit_qagent.improve.tasks import check_tasks
from lit_qagent.improve.tracking import RunStatus, Tracker
from lit_qagent.stages import Command, costs, exit_code, read_json, run_stages

_SHOWN = ("trees", "successes", "mean_best_reward", "requests")


@dataclass(kw_only=True)
class RoundStage:
    """One command of a round, with the config that was made for it.

    Attributes:
        name: Also the name of its config file.
        module: ``python -m`` this.
        purpose: What it does, for the reader.
        config: Its config file.
        options: What follows the config; no part of what a finished stage is known by.
    """

    name: str
    module: str
    purpose: str
    config: Path
    options: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> list[str]:
        """What follows ``python``."""
        return ["-m", self.module, self.name, "--config", str(self.config), *self.options]


def run_loop(spec: Improve, *, say: Callable[[str], None]) -> Record:
    """Run the rounds that are left; return the record.

    Args:
        spec: What to do.
        say: Told what is going on.

    Raises:
        ConfigError: The configs cannot work together, or the world lacks tasks that they name.
        StoreError: The folder is in use, or was made with other settings.
        PolicyFailure: The policy left too many validation episodes without an answer; the next
            run plays them again.
        subprocess.CalledProcessError: A stage failed, or was interrupted; what is finished is kept.
    """
    base = read_configs(spec)
    with lock_folder(spec.folder) as lock:
        say("Looking for the tasks of all rounds in the world ...")
        # Before the record is made, which other settings could not go on with.
        check_tasks(spec, base)
        record = open_record(spec.folder, spec.settings() | {"configs": base})
        _Loop(spec, base, record, say=say, lock=lock).run()
    return record


class _Loop:
    """What the rounds share."""

    def __init__(
        self,
        spec: Improve,
        base: dict[str, Config],
        record: Record,
        *,
        say: Callable[[str], None],
        lock: int,
    ) -> None:
        self.spec = spec
        self.base = base
        self.record = record
        self.say = say
        self.lock = lock
        self.tracker = Tracker(base["fit"], record)
        self.tracker.begin()
        self.agents = treatment_and_control(base["predict"])
        self._began = 0.0

    def run(self) -> None:
        """Run the rounds that are left, and write down how that ended, whatever ends it."""
        record = self.record
        try:
            for number in range(len(record.rounds) + 1, self.spec.budget.rounds + 1):
                self.play_round(number)
        except BudgetSpent as stop:
            self._end("stopped", str(stop))
        except BaseException as error:
            self._fail(error)
            raise
        else:
            self._end("finished", f"{len(record.rounds)} rounds")

    def play_round(self, number: int) -> None:
        """Run what is left of a round, decide, and write it down."""
        record = self.record
        record.status, record.why = "running", f"round {number}"
        self._spend()
        plan = self._plan(number)
        self.say(f"\n=== Round {number} of {self.spec.budget.rounds}, {_guide(record)}")
        configs = round_configs(self.base, self.spec, plan)
        stages = self._stages(write_configs(configs, plan.folder), plan)
        try:
            done = run_stages(
                stages,
                plan.folder,
                say=self.say,
                before=lambda stage: self._before(),
                after=lambda stage: self._after(stage, plan),
                keep_open=[self.lock],
            )
        finally:
            self._count_seconds(number)
            self._spend(refuse=False)
        row = self._decide(plan) | {"stages": costs(done)}
        row |= {"cost": round_cost(record, number, self.spec.prices), "spent": dict(record.spent)}
        record.rounds.append(row)
        if row["accepted"]:
            record.accepted, record.checkpoint = number, str(plan.checkpoint)
        record.save()
        self.tracker.log_round(row)
        self.say(f"\nRound {number}: {row['why']}")

    def _end(self, status: str, why: str) -> None:
        self._note(status, why)
        self._close_runs("FINISHED")

    def _fail(self, error: BaseException) -> None:
        self._note("stopped", f"{self.record.why}: {_reason(error)}")
        try:
            self._close_runs("KILLED" if _is_interruption(error) else "FAILED")
        except Exception as other:  # a tracking server that is down must not hide what failed
            self.say(f"MLflow's runs of this loop stay open: {other}")

    def _note(self, status: str, why: str) -> None:
        self.record.status, self.record.why = status, why
        self.record.save()

    def _close_runs(self, status: RunStatus) -> None:
        values = {key: value for key, value in vars(self.record).items() if key != "path"}
        self.tracker.end(values, status)

    def _plan(self, number: int) -> RoundPlan:
        record = self.record
        return RoundPlan(
            number=number,
            folder=round_folder(record, number),
            accepted=Path(record.checkpoint) if record.checkpoint else None,
            pairs=tuple(round_folder(record, earlier) / "pairs" for earlier in range(1, number)),
            mlflow_run=self.tracker.round_run(number),
        )

    def _stages(self, configs: dict[str, Path], plan: RoundPlan) -> list[RoundStage]:
        own = self.base["collect"].get("budget") or {}
        limits, prices = self.spec.budget.limits, self.spec.prices
        options = collect_limits(self.record.spent, limits, own, prices)
        resumes = any((plan.folder / "fit").glob("*.ckpt"))
        parts: Sequence[tuple[str, str, str, list[str]]] = (
            ("collect", "data_collection", "search new tasks", options),
            ("pairs", "data_collection", "turn the trees into preference pairs", []),
            ("fit", "lit_qagent", "train a Q-model", ["--ckpt_path", "last"] if resumes else []),
            ("predict", "lit_qagent", "play the validation tasks with it", []),
        )
        return [
            RoundStage(
                name=name, module=module, purpose=purpose, config=configs[name], options=more
            )
            for name, module, purpose, more in parts
        ]

    def _before(self) -> None:
        """Look at the budget; begin to count."""
        self._spend()
        self._began = time.monotonic()

    def _after(self, stage: Command, plan: RoundPlan) -> None:
        """Count what a stage has cost; one that was cut, or lacks answers, is not done."""
        seconds = time.monotonic() - self._began
        self._count_seconds(plan.number)
        self._spend(refuse=False)
        self.say(
            f"{stage.name} took {seconds:,.0f} s; spent so far: {cost_text(self.record.spent)}"
        )
        if stage.name == "collect":
            summary = read_json(plan.trees / "summary.json")
            if summary.get("stopped_by"):
                refuse_overspending(self.record.spent, self.spec.budget.limits)
        if stage.name == "predict":
            refuse_unanswered(self._contest(plan), self.spec.accept)

    def _count_seconds(self, number: int) -> None:
        if self._began:
            self.record.add_seconds(number, time.monotonic() - self._began)
            self._began = 0.0
            self.record.save()

    def _spend(self, *, refuse: bool = True) -> None:
        self.record.spent = count_cost(self.record, self.spec.prices)
        self.record.save()
        if refuse:
            refuse_overspending(self.record.spent, self.spec.budget.limits)

    def _decide(self, plan: RoundPlan) -> dict[str, Any]:
        card = read_json(plan.new_pairs / "card.json")
        summary = read_json(plan.trees / "summary.json")
        first, played = self.spec.tasks.first_of(plan.number), self.spec.validation
        return {
            "round": plan.number,
            "guided_by": self.record.accepted,
            "searched_tasks": [first, first + self.spec.tasks.per_round - 1],
            "validation": {
                "split": played.split,
                "tasks": [played.first_task, played.first_task + played.num_tasks - 1],
                "seeds": played.seeds,
            },
            "collect": {key: summary[key] for key in _SHOWN},
            "pairs": card["num_pairs"],
            "checkpoint": str(plan.checkpoint),
            **decide(self._contest(plan), self.spec.accept),
        }

    def _contest(self, plan: RoundPlan) -> Contest:
        record = self.record
        agent, control = self.agents
        before = round_folder(record, record.accepted) / "predict" if record.accepted else None
        return Contest(new=plan.results, agent=agent, before=before, control=control)


def _reason(error: BaseException) -> str:
    """Say in words what ended a loop."""
    if _is_interruption(error):
        return "interrupted"
    if isinstance(error, subprocess.CalledProcessError):
        return f"python {' '.join(error.cmd)} ended with status {exit_code(error)}"
    return str(error) or type(error).__name__


def _is_interruption(error: BaseException) -> bool:
    """Return whether Ctrl-C or SIGTERM came, here or in a stage."""
    if isinstance(error, subprocess.CalledProcessError):
        return exit_code(error) in (EXIT_INTERRUPTED, 128 + signal.SIGTERM)
    return isinstance(error, KeyboardInterrupt)


def _guide(record: Record) -> str:
    if record.accepted is None:
        return "searching without a Q-model"
    return f"guided by the Q-model of round {record.accepted}"
