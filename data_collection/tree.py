"""The search tree: one node per step, by parent index, and the statistics of the search."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from lit_qagent.core.errors import DataError
from lit_qagent.core.records import Step

ROOT = 0


@dataclass(kw_only=True, slots=True)
class Node:
    """One step in a search; what happened is fixed, the statistics change by `SearchTree.backup`.

    Attributes:
        index: Position in `SearchTree.nodes`.
        parent: Index of the parent; None for the root.
        depth: Steps taken up to and with this one; 0 for the root.
        step: The action and what followed; None for the root. Only the text of its observation
            is kept.
        visits: ``N``, how many evaluations were backed up through this node.
        value: ``V``, the mean of what was backed up; 0 while unvisited.
        children: Indices of the children, in sampling order.
        is_exhausted: True if nothing below is left to search.
        prior: What the search's rule thought of the action before any visit; None if it has none.
    """

    index: int
    parent: int | None
    depth: int
    step: Step | None = None
    visits: int = 0
    value: float = 0.0
    children: list[int] = field(default_factory=list)
    is_exhausted: bool = False
    prior: float | None = None

    @property
    def is_terminal(self) -> bool:
        """True if the episode ended with this step."""
        return self.step is not None and self.step.is_last


@dataclass(kw_only=True, slots=True)
class SearchTree:
    """All nodes of one search; nodes are appended and never removed.

    Attributes:
        truncation_reward: What an episode cut by the step limit earns.
        nodes: Node 0 is the root; a parent comes before its children.
    """

    truncation_reward: float
    nodes: list[Node] = field(default_factory=lambda: [Node(index=ROOT, parent=None, depth=0)])

    def __getitem__(self, index: int) -> Node:
        """Return a node.

        Raises:
            DataError: No such node.
        """
        if not 0 <= index < len(self.nodes):
            raise DataError(
                f"node {index} is not in the tree, which has nodes 0 to {len(self.nodes) - 1}; "
                "the record that names it is damaged or out of order"
            )
        return self.nodes[index]

    def add(self, parent: int, step: Step, prior: float | None = None) -> Node:
        """Append one child.

        Raises:
            DataError: The parent is absent or terminal.
        """
        above = self[parent]
        if above.is_terminal:
            raise DataError(
                f"node {parent} ended its episode and can have no child; "
                "the record that adds one is damaged or out of order"
            )
        node = Node(
            index=len(self.nodes),
            parent=parent,
            depth=above.depth + 1,
            step=step,
            is_exhausted=step.is_last,
            prior=prior,
        )
        self.nodes.append(node)
        above.children.append(node.index)
        return node

    def outcome(self, step: Step) -> float:
        """Return what the last step of an episode earns: its reward, or `truncation_reward`."""
        return self.truncation_reward if step.truncated else step.reward

    def backup(self, index: int, reward: float) -> None:
        """Add one evaluation to a node and all above it: ``N += 1; V += (r - V) / N``."""
        for node in self.upwards(index):
            node.visits += 1
            node.value += (reward - node.value) / node.visits

    def close(self, index: int) -> None:
        """Mark a freshly expanded node, and those above it, exhausted if all children are."""
        for node in self.upwards(index):
            if not all(self.nodes[child].is_exhausted for child in node.children):
                return
            node.is_exhausted = True

    def q_hat(self, index: int) -> float | None:
        """Return the label ``Q_hat = r + V`` of the action that led to a node.

        Transitions are deterministic and rewards come at the end, so it is the outcome of a
        terminal node, ``V`` of a visited one, and unknown (None) for any other.
        """
        node = self[index]
        if node.step is not None and node.is_terminal:
            return self.outcome(node.step)
        return node.value if node.visits else None

    def upwards(self, index: int) -> Iterator[Node]:
        """Return a node, its parent, and so on to the root."""
        node = self[index]
        yield node
        while node.parent is not None:
            node = self.nodes[node.parent]
            yield node

    def path(self, index: int) -> list[Node]:
        """Return the nodes from the root to a node, both included."""
        return [*self.upwards(index)][::-1]

    def steps(self, index: int) -> list[Step]:
        """Return the steps from the root to a node."""
        return [node.step for node in self.path(index) if node.step is not None]
