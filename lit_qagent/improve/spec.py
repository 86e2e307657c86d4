"""The settings of the self-improvement loop."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lit_qagent.core.errors import ConfigError
from lit_qagent.evaluation.cost import Prices


@dataclass(frozen=True, kw_only=True)
class StageConfigs:
    """A config for each command of a round, as for a run by hand.

    Attributes:
        collect: Of ``python -m data_collection collect``.
        pairs: Of ``python -m data_collection pairs``.
        fit: Of ``python -m lit_qagent fit``.
        predict: Of ``python -m lit_qagent predict``; its ``play.treatment`` is the agent that is
            judged, the first of its controls what the first Q-model has to beat.
    """

    collect: Path
    pairs: Path
    fit: Path
    predict: Path

    def paths(self) -> dict[str, Path]:
        """Return name -> path."""
        return {each.name: Path(getattr(self, each.name)) for each in fields(self)}


@dataclass(frozen=True, kw_only=True)
class RoundTasks:
    """Which tasks are searched; each round takes new ones of the collect config's split.

    Attributes:
        per_round: Tasks in each round.
        first_task: Position of the first round's first task in the split.
    """

    per_round: int
    first_task: int = 0

    def __post_init__(self) -> None:
        if self.per_round < 1:
            raise ConfigError(f"tasks.per_round must be >= 1, got {self.per_round}")
        if self.first_task < 0:
            raise ConfigError(f"tasks.first_task must be >= 0, got {self.first_task}")

    def first_of(self, round_number: int) -> int:
        """Return the position of a round's first task; rounds count from 1."""
        return self.first_task + (round_number - 1) * self.per_round


@dataclass(frozen=True, kw_only=True)
class ValidationTasks:
    """The tasks that decide; the same ones in every round, so that rounds can be compared.

    Attributes:
        num_tasks: Number of tasks.
        split: Split of the world; never ``test``, which is for the final report. In a world that
            has no other it is the one that is searched, with tasks that no round searches.
        first_task: Position of the first task in the split.
        seeds: One episode per agent, task and seed.
    """

    num_tasks: int
    split: str = "valid"
    first_task: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        if self.split == "test":
            raise ConfigError(
                "validation.split must not be 'test': choosing on the test tasks would spoil them "
                "for the final report; take a validation split, or training tasks that no round "
                "searches"
            )
        if self.first_task < 0:
            raise ConfigError(f"validation.first_task must be >= 0, got {self.first_task}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"validation.seeds must be different numbers, got {self.seeds}")
        if self.num_tasks < 2:
            raise ConfigError(
                f"validation.num_tasks must be >= 2, got {self.num_tasks}; an interval over tasks "
                "needs several, and 50 or more to show anything but large differences"
            )


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """What a decision has to rest on, besides a difference that is shown.

    Attributes:
        min_tasks: Fewest validation tasks that have to be compared.
        max_missing: Largest share of the validation tasks on which an episode may be missing, as
            it failed: those that fail are seldom those that would have gone as the others did.
        wait_for_answers: Where more are missing only as the policy gave no answer, stop, so that
            the same command plays them again; false counts them like all others. It may change.
    """

    min_tasks: int = 10
    max_missing: float = 0.05
    wait_for_answers: bool = True

    def __post_init__(self) -> None:
        if self.min_tasks < 2:
            raise ConfigError(f"accept.min_tasks must be >= 2, got {self.min_tasks}")
        if not 0 <= self.max_missing < 1:
            raise ConfigError(f"accept.max_missing must be in [0, 1), got {self.max_missing}")

    def criteria(self) -> dict[str, Any]:
        """Return what decides on a Q-model once its episodes are there."""
        return {"min_tasks": self.min_tasks, "max_missing": self.max_missing}


@dataclass(frozen=True, kw_only=True)
class LoopBudget:
    """What the whole loop may cost at most; what is not given is not limited.

    It is looked at before each stage, and collecting stops within a stage; so the loop may cost
    as much more as one fit or one evaluation. Raise it and give the same command to go on.

    Attributes:
        rounds: Rounds.
        seconds: Wall time of the stages, in seconds.
        requests: Requests to the policy.
        tokens: Tokens of prompts and answers together.
        dollars: Price of the tokens; needs ``prices``.
    """

    rounds: int = 3
    seconds: float | None = None
    requests: int | None = None
    tokens: int | None = None
    dollars: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and value <= 0:
                raise ConfigError(
                    f"budget.{each.name} must be > 0, got {value}; leave it out for no limit"
                )

    @property
    def limits(self) -> dict[str, float]:
        """Limit of each cost that has one; rounds are no cost."""
        values = {name: value for name, value in asdict(self).items() if name != "rounds"}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Improve:
    """Search, train, and keep the new Q-model only if validation tasks show that it acts better.

    Each round searches new tasks (guided by the Q-model accepted last, once there is one), makes
    pairs, trains a Q-model and plays the validation tasks. The new model is accepted only if the
    95 % interval of its paired difference to the one before lies above zero and the permutation
    test agrees, on enough tasks of which next to none is missing. Interrupted or killed, the same
    command goes on where it stopped.

    Attributes:
        folder: Everything of the loop; give the same one again to go on.
        configs: A config for each command.
        tasks: Which tasks are searched.
        validation: Which tasks decide.
        accept: What a decision has to rest on.
        budget: What the loop may cost at most.
        prices: What the policy's tokens cost; without them there are no dollars.
        search: Settings of the search in rounds that an accepted Q-model guides, over those of the
            collect config.
        train_on: all trains on the pairs of all rounds so far, new on those of the round alone.
        start: fresh trains a new adapter in each round, accepted goes on from the Q-model accepted
            last.
    """

    folder: Path
    configs: StageConfigs
    tasks: RoundTasks
    validation: ValidationTasks
    accept: Acceptance = field(default_factory=Acceptance)
    budget: LoopBudget = field(default_factory=LoopBudget)
    prices: Prices | None = None
    search: dict[str, Any] = field(default_factory=lambda: {"variant": "puct"})
    train_on: Literal["all", "new"] = "all"
    start: Literal["fresh", "accepted"] = "fresh"

    def __post_init__(self) -> None:
        if self.budget.dollars is not None and self.prices is None:
            raise ConfigError("budget.dollars needs prices, in dollars per million tokens")
        if self.validation.num_tasks < self.accept.min_tasks:
            raise ConfigError(
                f"validation.num_tasks is {self.validation.num_tasks} and accept.min_tasks "
                f"{self.accept.min_tasks}, so no Q-model could be accepted; take more tasks"
            )

    def settings(self) -> dict[str, Any]:
        """Return what decides the outcome, as JSON values; budget and waiting do not.

        Defaults of ``accept`` are left out: loops of versions without it go on.
        """
        criteria = self.accept.criteria()
        accept = {"accept": criteria} if criteria != Acceptance().criteria() else {}
        return {
            "tasks": asdict(self.tasks),
            "validation": asdict(self.validation),
            "prices": asdict(self.prices) if self.prices else None,
            "search": self.search,
            "train_on": self.train_on,
            "start": self.start,
            **accept,
        }
