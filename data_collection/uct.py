"""The rules that lead a search down its tree: UCT, PUCT, and both with leaves in flight."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from data_collection.tree import ROOT, Node, SearchTree

Selection = Literal["uct", "puct", "valued"]


def uct(value: float, visits: int, parent_visits: int, *, eta: float = 2.0) -> float:
    """Return ``V + sqrt(eta * ln N(parent) / N)``; infinite for an unvisited child.

    Args:
        value: ``V``, already the mean of what was backed up; it is not divided again.
        visits: ``N`` of the child.
        parent_visits: ``N`` of its parent, >= 1 if the child was visited.
        eta: Weight of exploration; the paper's is 2.

    Examples:
        >>> round(uct(0.5, 1, 4), 4)
        2.1651
        >>> uct(0.0, 0, 4)
        inf
    """
    if visits == 0:
        return math.inf
    return value + math.sqrt(eta * math.log(parent_visits) / visits)


def puct(value: float, prior: float, visits: int, parent_visits: int, *, weight: float) -> float:
    """Return ``V + c * P * sqrt(N(parent)) / (1 + N)``; an unvisited child counts V = 0.

    Examples:
        >>> puct(0.5, 0.25, 3, 16, weight=2.0)
        1.0
    """
    return value + weight * prior * math.sqrt(parent_visits) / (1 + visits)


@dataclass(kw_only=True, slots=True)
class Pending:
    """Leaves in flight: WU-UCT counts their evaluations as visits before they are observed.

    Attributes:
        visits: Evaluations in flight through each node.
        busy: Leaves that are being expanded; they cannot be selected again.
        num_leaves: Leaves in flight.
    """

    visits: Counter[int] = field(default_factory=Counter)
    busy: set[int] = field(default_factory=set)
    num_leaves: int = 0

    def add(self, tree: SearchTree, leaf: int) -> None:
        """Count a leaf that was selected."""
        self.num_leaves += 1
        self.visits.update(node.index for node in tree.upwards(leaf))
        if not tree[leaf].is_terminal:
            self.busy.add(leaf)

    def remove(self, tree: SearchTree, leaf: int) -> None:
        """Forget a leaf whose evaluation has come."""
        self.num_leaves -= 1
        self.visits.subtract(node.index for node in tree.upwards(leaf))
        self.busy.discard(leaf)


@dataclass(frozen=True, kw_only=True, slots=True)
class Descent:
    """How to descend.

    Attributes:
        selection: ``uct``; ``puct`` (the prior of a node weighs its exploration); ``valued`` (UCT
            in which the prior of a node counts as its first visit).
        eta: Weight of exploration in UCT.
        prior_weight: ``c`` of PUCT.
        revisit_ends: Let ends that are known already be selected again.
    """

    selection: Selection = "uct"
    eta: float = 2.0
    prior_weight: float = 1.0
    revisit_ends: bool = False

    def score(self, child: Node, visits: int, parent_visits: int) -> float:
        """Return what a child's turn is decided by; visits include those in flight."""
        if self.selection == "puct":
            prior = child.prior or 0.0
            return puct(child.value, prior, visits, parent_visits, weight=self.prior_weight)
        if self.selection == "valued" and child.prior is not None:
            value = (child.value * child.visits + child.prior) / (child.visits + 1)
            return uct(value, visits + 1, parent_visits + 1, eta=self.eta)
        return uct(child.value, visits, parent_visits, eta=self.eta)

    def select(self, tree: SearchTree, pending: Pending | None = None) -> int | None:
        """Descend to a node without children, past exhausted ones; ties go to the earlier.

        The root must not be exhausted unless ``revisit_ends``.

        Args:
            tree: The tree.
            pending: Leaves in flight; with none of them this is the sequential rule.

        Returns:
            The leaf; None if every leaf that is open is in flight.
        """
        if pending is not None and pending.num_leaves:
            return self._select_beside(tree, tree[ROOT], pending)
        node = tree[ROOT]
        while node.children:
            parent_visits = node.visits
            node = max(
                self._open(tree, node),
                key=lambda child: self.score(child, child.visits, parent_visits),
            )
        return node.index

    def _select_beside(self, tree: SearchTree, node: Node, pending: Pending) -> int | None:
        """Descend as `select` does, past leaves in flight, whose visits count already."""
        if not node.children:
            return None if node.index in pending.busy else node.index
        unseen = pending.visits
        parent_visits = node.visits + unseen[node.index]
        ranked = sorted(
            self._open(tree, node),
            key=lambda child: self.score(child, child.visits + unseen[child.index], parent_visits),
            reverse=True,
        )
        found = (self._select_beside(tree, child, pending) for child in ranked)
        return next((leaf for leaf in found if leaf is not None), None)

    def _open(self, tree: SearchTree, node: Node) -> list[Node]:
        children = [tree.nodes[child] for child in node.children]
        return children if self.revisit_ends else [c for c in children if not c.is_exhausted]
