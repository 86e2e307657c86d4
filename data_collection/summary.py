"""What a collection has brought so far, counted from the stored trees."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from data_collection.iterations import Cost
from data_collection.tree_file import StoredTree
from lit_qagent.core.records import SUCCESS_REWARD

_REASONS_SHOWN = 5
_TREE_COUNTS = ("trees", "finished", "failures", "nodes", "iterations", "steps")


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
        unread_scores: Answers of the policy that should have been a score and were none.
        torn_lines: Half-written iterations that a kill left and that were dropped.
        not_started: Tasks whose episode the world could not start.
        failure_reasons: Why trees failed or did not start: message to count.
        seconds: Wall time of all runs that ended in order.
        run_seconds: Wall time of the last run.
        run_tokens_per_second: Tokens generated in the last run per second.
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
    failure_reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    run_seconds: float = 0.0
    run_tokens_per_second: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)

    def table(self) -> str:
        """Return the numbers as lines for people."""
        numbers = self.to_dict()
        del numbers["failure_reasons"]
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


def summarize(
    trees: Iterable[StoredTree], not_started: Sequence[str] = (), **run: float
) -> Summary:
    """Count trees.

    Args:
        trees: Stored trees.
        not_started: For each task that could not start, why.
        **run: The fields that the trees do not know: torn lines and times.
    """
    counts: Counter[str] = Counter()
    best: list[float] = []
    reasons = Counter(not_started)
    for stored in trees:
        counts.update(_count_tree(stored))
        reward = best_reward(stored)
        best += [] if reward is None else [reward]
        if stored.end is not None and stored.end.failure is not None:
            reasons[f"{stored.end.failure.error}: {stored.end.failure.message}"] += 1
    num_invalid = counts.pop("invalid", 0)
    cost = Cost(**{name: counts.pop(name, 0) for name in asdict(Cost())})
    return Summary(
        **{name: counts[name] for name in _TREE_COUNTS},
        successes=sum(reward >= SUCCESS_REWARD for reward in best),
        mean_best_reward=sum(best) / len(best) if best else 0.0,
        invalid_rate=num_invalid / counts["steps"] if counts["steps"] else 0.0,
        not_started=len(not_started),
        failure_reasons=dict(reasons),
        **asdict(cost),
        **run,  # type: ignore[arg-type]  # counts among them are ints
    )


def best_reward(stored: StoredTree) -> float | None:
    """Return the best reward in [0, 1] at an end that the search saw; None if it saw none."""
    return max(
        (step.reward for turn in stored.iterations for step in turn.steps if step.is_last),
        default=None,
    )


def _count_tree(stored: StoredTree) -> dict[str, int]:
    """Return what can be added up over trees."""
    steps = [step for iteration in stored.iterations for step in iteration.steps]
    cost = sum((iteration.cost for iteration in stored.iterations), start=Cost())
    return {
        "trees": 1,
        "finished": stored.end is not None,
        "failures": stored.end is not None and stored.end.reason == "failed",
        "nodes": len(stored.tree.nodes),
        "iterations": len(stored.iterations),
        "steps": len(steps),
        "invalid": sum(not step.valid for step in steps),
        **asdict(cost),
    }


def _shown(value: object) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
