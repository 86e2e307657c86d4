"""What a collection has brought so far, counted from the stored trees."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from data_collection.iterations import Cost, Iteration, TreeEnd
from data_collection.tree_file import StoredTree
from lit_qagent.core.records import SUCCESS_REWARD

_REASONS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Numbers of the trees of one store.

    Attributes:
        trees: Trees started.
        finished: Trees that ended, failed ones included.
        failures: Trees that ended because the policy or the world failed.
        successes: Trees with a full reward, in a node or at the end of a rollout.
        mean_best_reward: Mean over the trees with an end of their best reward, in [0, 1].
        nodes: Nodes, roots included.
        iterations: Iterations done.
        steps: Steps the world took, in nodes and rollouts.
        invalid_rate: Share of these steps that the world could not carry out.
        requests: Requests to the policy.
        prompt_tokens: Tokens of their prompts.
        generated_tokens: Tokens of their answers.
        dropped_steps: Oldest steps left out of prompts because the context was too short.
        cut_actions: Answers that the token limit cut.
        unread_scores: Scores that were asked for and not given: the answer was none, or the context
            too short for the question.
        torn_lines: Half-written iterations that a kill left and that were dropped.
        not_started: Tasks whose episode the world could not start.
        not_started_tasks: Their ids, and why; the next run tries them again.
        failure_reasons: Why trees failed or did not start: message to count.
        seconds: Wall time of all runs that ended in order.
        run_seconds: Wall time of the last run.
        run_tokens_per_second: Tokens generated in the last run per second.
        stopped_by: The budget that ended the last run before its tasks were done.
        handed_out_again: In the last run: how often a tree was given to another worker because
            its own had died.
    """

    trees: int
    finished: int
    failures: int
    successes: int
    mean_best_reward: float
    nodes: int
    iterations: int
    steps: int
    invalid_rate: float
    requests: int
    prompt_tokens: int
    generated_tokens: int
    dropped_steps: int
    cut_actions: int
    unread_scores: int = 0
    torn_lines: int = 0
    not_started: int = 0
    not_started_tasks: Mapping[str, str] = field(default_factory=dict)
    failure_reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    run_seconds: float = 0.0
    run_tokens_per_second: float = 0.0
    stopped_by: str | None = None
    handed_out_again: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)

    def table(self) -> str:
        """Return the numbers as lines for people."""
        numbers = self.to_dict()
        del numbers["failure_reasons"], numbers["not_started_tasks"]
        for name in ("stopped_by", "handed_out_again"):
            if not numbers[name]:
                del numbers[name]
        width = max(map(len, numbers))
        rows = [
            f"  {name.replace('_', ' '):<{width}}  {_shown(value)}"
            for name, value in numbers.items()
        ]
        reasons = sorted(self.failure_reasons.items(), key=lambda item: -item[1])
        rows += [f"  {count} failed: {message}" for message, count in reasons[:_REASONS_SHOWN]]
        if len(reasons) > _REASONS_SHOWN:
            rows.append(
                f"  and {len(reasons) - _REASONS_SHOWN} other reasons, see the summary file"
            )
        return "\n".join(rows)


@dataclass(kw_only=True, slots=True)
class TreeCounts:
    """Numbers of one tree, counted while it grows or read from the store.

    Attributes:
        nodes: Nodes, the root included.
        iterations: Iterations done.
        steps: Steps the world took.
        invalid: Steps among them that it could not carry out.
        cost: What the requests cost.
        best: Best reward in [0, 1] at an end that the search saw; None if it saw none.
        end: How the tree ended; None if it is unfinished.
    """

    nodes: int = 1
    iterations: int = 0
    steps: int = 0
    invalid: int = 0
    cost: Cost = field(default_factory=Cost)
    best: float | None = None
    end: TreeEnd | None = None

    def add(self, iteration: Iteration) -> None:
        """Count one more iteration."""
        self.nodes += len(iteration.children)
        self.iterations += 1
        self.cost += iteration.cost
        for step in iteration.steps:
            self.steps += 1
            self.invalid += not step.valid
            if step.is_last and (self.best is None or step.reward > self.best):
                self.best = step.reward

    @property
    def is_success(self) -> bool:
        """True if the full reward was earned."""
        return self.best is not None and self.best >= SUCCESS_REWARD


def count_tree(stored: StoredTree) -> TreeCounts:
    """Count a stored tree."""
    counts = TreeCounts(end=stored.end)
    for iteration in stored.iterations:
        counts.add(iteration)
    return counts


def summarize(
    trees: Sequence[TreeCounts],
    not_started: Mapping[str, str] | None = None,
    stopped_by: str | None = None,
    **run: float,
) -> Summary:
    """Add trees up.

    Args:
        trees: Their counts.
        not_started: Ids of tasks that could not start, and why.
        stopped_by: The budget of the run that was reached, if one was.
        **run: The fields that the trees do not know: torn lines and times.
    """
    not_started = dict(not_started or {})
    reasons = Counter(not_started.values())
    for tree in trees:
        if tree.end is not None and tree.end.failure is not None:
            reasons[f"{tree.end.failure.error}: {tree.end.failure.message}"] += 1
    best = [tree.best for tree in trees if tree.best is not None]
    steps = sum(tree.steps for tree in trees)
    return Summary(
        trees=len(trees),
        finished=sum(tree.end is not None for tree in trees),
        failures=sum(tree.end is not None and tree.end.reason == "failed" for tree in trees),
        successes=sum(tree.is_success for tree in trees),
        mean_best_reward=sum(best) / len(best) if best else 0.0,
        nodes=sum(tree.nodes for tree in trees),
        iterations=sum(tree.iterations for tree in trees),
        steps=steps,
        invalid_rate=sum(tree.invalid for tree in trees) / steps if steps else 0.0,
        not_started=len(not_started),
        not_started_tasks=not_started,
        stopped_by=stopped_by,
        failure_reasons=dict(reasons),
        **asdict(sum((tree.cost for tree in trees), start=Cost())),
        **run,  # type: ignore[arg-type]  # counts among them are ints
    )


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
