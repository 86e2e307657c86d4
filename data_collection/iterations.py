"""What a search writes down: header, one record per iteration, end; and their JSON form.

The same `apply_iteration` grows the tree of a running search and rebuilds it from the records, so
a rebuilt tree is the tree that was searched.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from data_collection.tree import SearchTree
from lit_qagent.core.records import SUCCESS_REWARD, Message, Observation, Step

EndReason = Literal["success", "exhausted", "iterations", "budget", "failed"]
OPEN_ENDS: frozenset[EndReason] = frozenset({"budget", "failed"})  # may be searched on


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeHeader:
    """What a tree starts from.

    Attributes:
        tree_id: Name of the tree, also of its file.
        task_id: The task searched.
        split: The task's split.
        seed: Seed of the collection; seeds of requests derive from it.
        head: The chat before the first action, see `History.head`.
        first_observation: What the world said at reset.
    """

    tree_id: str
    task_id: str
    split: str
    seed: int
    head: tuple[Message, ...]
    first_observation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What requests to the policy cost, and what they had to leave out.

    Attributes:
        requests: Requests made.
        prompt_tokens: Tokens of the prompts.
        generated_tokens: Tokens of the answers.
        dropped_steps: Oldest steps left out of prompts because the context was too short.
        cut_actions: Answers that the token limit cut.
        unread_scores: Scores that were asked for and not given: the answer was none, or the context
            too short for the question.
    """

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    dropped_steps: int = 0
    cut_actions: int = 0
    unread_scores: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            requests=self.requests + other.requests,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            generated_tokens=self.generated_tokens + other.generated_tokens,
            dropped_steps=self.dropped_steps + other.dropped_steps,
            cut_actions=self.cut_actions + other.cut_actions,
            unread_scores=self.unread_scores + other.unread_scores,
        )

    def to_json(self) -> dict[str, int]:
        """Return the counts as JSON values; `asdict` would cost a tenth of a search."""
        counts = {
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "dropped_steps": self.dropped_steps,
            "cut_actions": self.cut_actions,
        }
        if self.unread_scores:
            counts["unread_scores"] = self.unread_scores
        return counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Iteration:
    """One round of select, expand, evaluate and back up.

    Attributes:
        number: Count from 0.
        selected: The leaf that selection reached.
        children: Steps that expansion added below it, in sampling order; none if it is terminal.
        evaluated: The node evaluated.
        rollout: Steps of the policy from there to the end; they are not nodes.
        reward: What was backed up.
        cost: What the requests cost.
        priors: What the search's rule thought of each child; none for rules without priors.
        reflection: What the policy was told to keep in mind in later iterations; may be empty.
    """

    number: int
    selected: int
    children: tuple[Step, ...]
    evaluated: int
    rollout: tuple[Step, ...]
    reward: float
    cost: Cost = field(default_factory=Cost)
    priors: tuple[float, ...] = ()
    reflection: str = ""

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step the world took in this iteration."""
        return self.children + self.rollout

    @property
    def is_success(self) -> bool:
        """True if a step of this iteration earned the full reward."""
        return any(step.reward >= SUCCESS_REWARD for step in self.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a search could not go on.

    Attributes:
        error: Class of the error.
        message: Its text.
        iteration: The iteration in which it happened.
    """

    error: str
    message: str
    iteration: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeEnd:
    """How a search ended.

    Attributes:
        reason: ``success``; ``exhausted`` (nothing left to search); ``iterations`` (the limit);
            ``budget`` (a limit on cost or time); ``failed``.
        num_iterations: Iterations done.
        num_nodes: Nodes, the root included.
        failure: What failed, if something did.
    """

    reason: EndReason
    num_iterations: int
    num_nodes: int
    failure: Failure | None = None


def apply_iteration(tree: SearchTree, iteration: Iteration) -> None:
    """Grow a tree by one iteration: add the children, back up the reward."""
    priors = iteration.priors or (None,) * len(iteration.children)
    for step, prior in zip(iteration.children, priors, strict=True):
        tree.add(iteration.selected, step, prior)
    if iteration.children:
        tree.close(iteration.selected)
    tree.backup(iteration.evaluated, iteration.reward)


def header_to_json(header: TreeHeader) -> dict[str, Any]:
    """Return the header as JSON values."""
    return asdict(header) | {"head": [message.to_dict() for message in header.head]}


def header_from_json(record: Mapping[str, Any]) -> TreeHeader:
    """Read what `header_to_json` wrote."""
    head = tuple(Message(**message) for message in record["head"])
    return TreeHeader(**{**record, "head": head})


def iteration_to_json(iteration: Iteration) -> dict[str, Any]:
    """Return an iteration as JSON values."""
    record: dict[str, Any] = {
        "number": iteration.number,
        "selected": iteration.selected,
        "children": [_step_to_json(step) for step in iteration.children],
        "evaluated": iteration.evaluated,
        "rollout": [_step_to_json(step) for step in iteration.rollout],
        "reward": iteration.reward,
        "cost": iteration.cost.to_json(),
    }
    # What most searches do not have is not written, and files of theirs stay as they were.
    if iteration.priors:
        record["priors"] = list(iteration.priors)
    if iteration.reflection:
        record["reflection"] = iteration.reflection
    return record


def iteration_from_json(record: Mapping[str, Any]) -> Iteration:
    """Read what `iteration_to_json` wrote."""
    return Iteration(
        **{
            **record,
            "children": tuple(_step_from_json(step) for step in record["children"]),
            "rollout": tuple(_step_from_json(step) for step in record["rollout"]),
            "cost": Cost(**record["cost"]),
            "priors": tuple(record.get("priors", ())),
        }
    )


def end_to_json(end: TreeEnd) -> dict[str, Any]:
    """Return an end as JSON values."""
    return asdict(end)


def end_from_json(record: Mapping[str, Any]) -> TreeEnd:
    """Read what `end_to_json` wrote."""
    failure = record["failure"]
    return TreeEnd(**{**record, "failure": Failure(**failure) if failure else None})


def _step_to_json(step: Step) -> dict[str, Any]:
    return {
        "action": step.action,
        "observation": step.observation.text,
        "reward": step.reward,
        "terminated": step.terminated,
        "truncated": step.truncated,
        "valid": step.valid,
        "metrics": dict(step.metrics),
    }


def _step_from_json(record: Mapping[str, Any]) -> Step:
    return Step(**{**record, "observation": Observation(text=record["observation"])})
