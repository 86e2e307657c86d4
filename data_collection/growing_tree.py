"""A tree while it is searched: what the run needs to know of it, wherever the work is done."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from data_collection.iterations import (
    Cost,
    EndReason,
    Failure,
    Iteration,
    TreeEnd,
    TreeHeader,
    apply_iteration,
)
from data_collection.spec import SearchSpec
from data_collection.tree import ROOT, SearchTree


class GrowingTree(ABC):
    """A search under way.

    Attributes:
        header: What the tree starts from.
        tree: The tree so far.
        num_iterations: Iterations done.
        has_success: True once a node or the end of a rollout earned the full reward.
        cost: What the iterations done have cost.

    Args:
        spec: How it is searched.
    """

    header: TreeHeader

    def __init__(self, spec: SearchSpec) -> None:
        self.tree = SearchTree(truncation_reward=spec.truncation_reward)
        self.num_iterations = 0
        self.has_success = False
        self.cost = Cost()
        self._spec = spec

    @abstractmethod
    def restore(self, iterations: Sequence[Iteration]) -> None:
        """Grow the tree of a fresh search from stored iterations, to go on from there.

        Raises:
            StoreError: This search would have selected another leaf than the stored one.
        """

    @abstractmethod
    async def iterate(self) -> Iteration:
        """Do one iteration; the tree changes only if all of it succeeds.

        Raises:
            PolicyFailure: The policy gave no answer.
            EnvironmentFailure: The world broke, or did not replay as recorded.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give up the iterations under way."""

    @property
    def end_reason(self) -> EndReason | None:
        """Why the search is over, or None if it can go on."""
        if self._spec.stop_at_success and self.has_success:
            return "success"
        if self.tree.nodes[ROOT].is_exhausted and not self._spec.revisit_ends:
            return "exhausted"
        return "iterations" if self.num_iterations >= self._spec.num_iterations else None

    def end(self, reason: EndReason, failure: Failure | None = None) -> TreeEnd:
        """Return the record that closes the tree."""
        return TreeEnd(
            reason=reason,
            num_iterations=self.num_iterations,
            num_nodes=len(self.tree.nodes),
            failure=failure,
        )

    def _grow(self, iteration: Iteration) -> None:
        """Put an iteration into the tree."""
        apply_iteration(self.tree, iteration)
        self.num_iterations += 1
        self.has_success = self.has_success or iteration.is_success
        self.cost += iteration.cost
