"""The rule that leads a search down its tree."""

import math

from data_collection.tree import ROOT, SearchTree


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


def select(tree: SearchTree, *, eta: float, revisit_ends: bool = False) -> int:
    """Descend by UCT to a node without children, past exhausted ones; ties go to the earlier.

    Unvisited children come first. The root must not be exhausted unless ``revisit_ends``.
    """
    node = tree[ROOT]
    while node.children:
        parent_visits = node.visits
        open_children = [
            tree[child] for child in node.children if revisit_ends or not tree[child].is_exhausted
        ]
        node = max(
            open_children, key=lambda child: uct(child.value, child.visits, parent_visits, eta=eta)
        )
    return node.index
