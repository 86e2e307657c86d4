"""What an evaluation is made of: agents, held-out tasks, and what is compared with what."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lit_qagent.agents.guided import GuidedAgent
from lit_qagent.agents.prompts import PROMPT_VERSION, PromptSpec
from lit_qagent.agents.selection import Scorer, Selector
from lit_qagent.agents.trials import Trials
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Sampling, Task
from lit_qagent.environments.base import Environment
from lit_qagent.environments.splits import tasks_in_range
from lit_qagent.evaluation.cost import Prices
from lit_qagent.evaluation.lineage import describe_lineage
from lit_qagent.policies.base import Policy

SCHEMA_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """One agent of the comparison; all agents share the policy.

    Attributes:
        selector: The rule that picks among the candidates.
        num_candidates: Actions sampled per decision (at most, where the selector adapts their
            number); one of them is executed.
        sampling: How this agent samples, where it differs from the others.
        trials: How often it may try a task; once if not given.
    """

    selector: Selector
    num_candidates: int = 1
    sampling: Sampling | None = None
    trials: Trials | None = None

    def __post_init__(self) -> None:
        self.selector.check_budget(self.num_candidates)

    @property
    def needs_scorer(self) -> bool:
        """True if it cannot act without a Q-model."""
        return self.selector.needs_scorer or (self.trials is not None and self.trials.needs_scorer)

    @property
    def uses(self) -> str:
        """What this agent knows that none can know in a single trial in earnest; or empty."""
        known = [self.selector.uses, self.trials.uses if self.trials else ""]
        return " and ".join(dict.fromkeys(text for text in known if text))


@dataclass(frozen=True, kw_only=True)
class HeldOutSpec:
    """Which tasks are played, and how often.

    Attributes:
        num_tasks: Number of tasks.
        split: Split of the environment.
        first_task: Position of the first task in the split.
        seeds: One episode per agent, task and seed.
    """

    num_tasks: int
    split: str = "test"
    first_task: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise ConfigError(f"tasks.num_tasks must be >= 1, got {self.num_tasks}")
        if self.first_task < 0:
            raise ConfigError(f"tasks.first_task must be >= 0, got {self.first_task}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"tasks.seeds must be different numbers, got {self.seeds}")


@dataclass(frozen=True, kw_only=True)
class PlaySpec:
    """How the episodes are played and compared.

    Attributes:
        output: Folder for trajectories and report; a folder of the same run is continued.
        treatment: The agent of interest.
        controls: The agents it is compared with; all other agents if not given.
        concurrency: Episodes in flight in each process.
        prices: What the policy's tokens cost; without them reports name no dollars.
        siblings: Folder of pairs by the rule all_siblings, without filters, from trees of held-out
            tasks: the report then says how far the Q-model ranks siblings as that search did.
    """

    output: Path
    treatment: str = "q_guided"
    controls: list[str] | None = None
    concurrency: int = 16
    prices: Prices | None = None
    siblings: Path | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"play.concurrency must be >= 1, got {self.concurrency}")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that decides what an evaluation finds; checked as soon as it is made.

    Attributes:
        environment: The world.
        policy: Who proposes actions, for all agents.
        agents: Name -> agent.
        tasks: The held-out tasks and the seeds.
        sampling: How the agents sample.
        prompt: How the world is shown.
        play: Where to write, what to compare.
    """

    environment: Environment
    policy: Policy
    agents: Mapping[str, AgentSpec]
    tasks: HeldOutSpec
    sampling: Sampling
    prompt: PromptSpec
    play: PlaySpec

    def __post_init__(self) -> None:
        for name in self.agents:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"agents: the name {name!r} must be letters, digits, '_' and '.' only"
                )
        self._check_known("play.treatment", [self.play.treatment])
        self._check_known("play.controls", self.controls)
        if self.play.treatment in self.controls:
            raise ConfigError(
                f"play.controls holds the treatment {self.play.treatment!r}; take it out"
            )

    @property
    def controls(self) -> list[str]:
        """The agents that the treatment is compared with."""
        if self.play.controls is not None:
            return self.play.controls
        return [name for name in self.agents if name != self.play.treatment]

    def held_out_tasks(self) -> list[Task]:
        """Return the tasks to play.

        Raises:
            ConfigError: The split has fewer tasks than asked for.
        """
        wanted = self.tasks
        return tasks_in_range(
            self.environment,
            wanted.split,
            wanted.first_task,
            wanted.num_tasks,
            remedy="lower tasks.num_tasks",
        )

    @property
    def trials(self) -> dict[str, Trials]:
        """Name -> trials, for the agents that may try a task more than once."""
        return {name: spec.trials for name, spec in self.agents.items() if spec.trials}

    def build_agents(self, scorer: Scorer | None) -> dict[str, GuidedAgent]:
        """Return name -> agent, ready to play.

        Raises:
            ConfigError: An agent needs a Q-model and there is none.
        """
        needy = [name for name, spec in self.agents.items() if spec.needs_scorer]
        if needy and scorer is None:
            raise ConfigError(
                f"agents {', '.join(needy)} need a Q-model; give a checkpoint to predict"
            )
        return {
            name: GuidedAgent(
                policy=self.policy,
                selector=spec.selector,
                num_candidates=spec.num_candidates,
                sampling=spec.sampling or self.sampling,
                prompt=self.prompt,
                scorer=scorer if spec.needs_scorer else None,
            )
            for name, spec in self.agents.items()
        }

    def settings(self, lineage: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything that decides the numbers, as JSON values, for the manifest."""
        prices = {"prices": asdict(self.play.prices)} if self.play.prices else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "environment": self.environment.settings(),
            "policy": self.policy.settings(),
            "prompt": {"version": PROMPT_VERSION, **asdict(self.prompt)},
            "sampling": asdict(self.sampling),
            "agents": {name: _describe(spec) for name, spec in self.agents.items()},
            "treatment": self.play.treatment,
            "controls": self.controls,
            "tasks": asdict(self.tasks),
            "task_ids": [task.task_id for task in self.held_out_tasks()],
            "q_model": describe_lineage(lineage),
            **prices,
        }

    def _check_known(self, option: str, names: Sequence[str]) -> None:
        for name, count in Counter(names).items():
            if name not in self.agents:
                raise ConfigError(f"{option}: no agent {name!r}; there are {sorted(self.agents)}")
            if count > 1:
                raise ConfigError(f"{option} names {name!r} {count} times; once is enough")


def _describe(spec: AgentSpec) -> dict[str, Any]:
    kind = type(spec.selector)
    options = {key: value for key, value in vars(spec.selector).items() if key[0] != "_"}
    return {
        "selector": f"{kind.__module__}.{kind.__qualname__}",
        **({"selector_options": options} if options else {}),
        "num_candidates": spec.num_candidates,
        "sampling": asdict(spec.sampling) if spec.sampling else None,
        **({"trials": _class_and_options(spec.trials)} if spec.trials else {}),
        **({"uses": spec.uses} if spec.uses else {}),
    }


def _class_and_options(trials: Trials) -> dict[str, Any]:
    kind = type(trials)
    shown = {key: value for key, value in vars(trials).items() if key[0] != "_"}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **shown}
