"""Rules that turn one search tree into preference pairs (METHOD: build preference pairs).

``paper`` and ``as_released`` walk the path to the best end the search saw: an end in the tree, or
the end of a rollout, whose path runs through the tree to the evaluated child; ``all_siblings`` and
``adjacent`` look at every node, ``trajectory`` at whole episodes. A tree whose best end earned
nothing gives no pair: it does not show which action is good.
"""

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from data_collection.pair_draft import (
    BestEnd,
    Choice,
    Draft,
    DrawnPair,
    Extraction,
    Labels,
    Valued,
    find_best_end,
    find_ends,
)
from data_collection.tree import Node, SearchTree
from data_collection.tree_file import StoredTree
from lit_qagent.agents.prompts import extend_history
from lit_qagent.core.records import History, Message

# Reasons for leaving something out, as they stand in the card.
NO_POSITIVE_REWARD = "trees_without_positive_reward"
NO_SIBLING = "depths_without_valued_sibling"
UNVISITED_SIBLING = "siblings_never_visited"
SAME_CHILD = "depths_where_best_and_worst_are_one"
EQUAL_VALUES = "couples_of_equal_value"


class PairRule(ABC):
    """Makes pairs of one tree."""

    name: ClassVar[str]

    def extract(self, stored: StoredTree, labels: Labels) -> Extraction:
        """Return the pairs of one tree; a tree whose best end earned nothing gives none."""
        removed: Counter[str] = Counter()
        best = find_best_end(stored)
        if best is None or best.reward <= 0:
            removed[NO_POSITIVE_REWARD] += 1
            return Extraction(pairs=(), removed=removed)
        draft = Draft(stored=stored, labels=labels, rule=self.name, removed=removed)
        return Extraction(pairs=tuple(self.draw(draft, best)), removed=removed)

    @abstractmethod
    def draw(self, draft: Draft, best: BestEnd) -> Iterator[DrawnPair]:
        """Draw the pairs of a tree whose best end earned something."""


class PathRule(PairRule):
    """Picks the better and the worse action at each depth of the best path."""

    @abstractmethod
    def choose(self, tree: SearchTree, on_path: Node, removed: Counter[str]) -> Choice | None:
        """Pick among a node of the path and its siblings; count why if there is no pair."""

    def show(self, head: Sequence[Message]) -> tuple[Message, ...]:
        """Return what of the chat before the first action goes into prompts."""
        return tuple(head)

    def draw(self, draft: Draft, best: BestEnd) -> Iterator[DrawnPair]:
        """Walk the path to the best end."""
        tree = draft.stored.tree
        history = History(head=self.show(draft.stored.header.head))
        for node in tree.path(best.node):
            if node.step is None:
                continue
            choice = self.choose(tree, node, draft.removed)
            if choice is not None:
                yield draft.pair(history, choice)
            history = extend_history(history, node.step)


class PaperRule(PathRule):
    """Chosen is the path's own action, rejected the sibling of lowest ``Q_hat``.

    A sibling that was never visited and is no end has no ``Q_hat``; it is never rejected.
    """

    name = "paper"

    def choose(self, tree: SearchTree, on_path: Node, removed: Counter[str]) -> Choice | None:
        """Pick the path's action and its worst sibling; ties go to the earlier sibling."""
        siblings = [tree[child] for child in _siblings(tree, on_path) if child != on_path.index]
        valued = [Valued(node, q) for node in siblings if (q := tree.q_hat(node.index)) is not None]
        removed[UNVISITED_SIBLING] += len(siblings) - len(valued)
        q_chosen = tree.q_hat(on_path.index)
        if not valued or q_chosen is None:
            removed[NO_SIBLING] += 1
            return None
        return Choice(Valued(on_path, q_chosen), min(valued, key=lambda each: each.q))


class AsReleasedRule(PathRule):
    """Chosen is the child of highest value, rejected the child of lowest value.

    As in the released code a child that was never visited counts as 0, nothing is made where
    both are the same child, and the prompt drops the in-context examples.
    """

    name = "as_released"

    def choose(self, tree: SearchTree, on_path: Node, removed: Counter[str]) -> Choice | None:
        """Pick the best and the worst child; ties go to the earlier one."""
        valued = [
            Valued(tree[child], tree.q_hat(child) or 0.0) for child in _siblings(tree, on_path)
        ]
        chosen = max(valued, key=lambda each: each.q)
        rejected = min(valued, key=lambda each: each.q)
        if chosen.node.index == rejected.node.index:
            removed[SAME_CHILD] += 1
            return None
        return Choice(chosen, rejected)

    def show(self, head: Sequence[Message]) -> tuple[Message, ...]:
        """Return the instructions, with the agent's acknowledgement if there is one, and the task.

        A head without a system message is an imported one: instructions, acknowledgement, examples
        in turns, task.
        """
        num_first = 1 if head[0].role == "system" else 2
        return (*head[:num_first], head[-1]) if len(head) > num_first else tuple(head)


class AllSiblingsRule(PairRule):
    """Every two siblings of unequal ``Q_hat``, anywhere in the tree."""

    name = "all_siblings"

    def draw(self, draft: Draft, best: BestEnd) -> Iterator[DrawnPair]:
        """Pair every sibling with all that are worth less."""
        for history, ranked in _ranked_siblings(draft):
            for better, worse in itertools.combinations(ranked, 2):
                if better.q > worse.q:
                    yield draft.pair(history, Choice(better, worse))
                else:
                    draft.removed[EQUAL_VALUES] += 1


class AdjacentRule(PairRule):
    """Siblings next to each other in the order of ``Q_hat``, anywhere in the tree."""

    name = "adjacent"

    def draw(self, draft: Draft, best: BestEnd) -> Iterator[DrawnPair]:
        """Pair every sibling with the next that is worth less."""
        for history, ranked in _ranked_siblings(draft):
            for better, worse in itertools.pairwise(ranked):
                if better.q > worse.q:
                    yield draft.pair(history, Choice(better, worse))
                else:
                    draft.removed[EQUAL_VALUES] += 1


class TrajectoryRule(PairRule):
    """The paper's ablation: the best whole episode against the worst, one pair per tree.

    Chosen and rejected hold all messages after the task, actions and observations in turn;
    training scores the actions of each and reads the observations.
    """

    name = "trajectory"

    def draw(self, draft: Draft, best: BestEnd) -> Iterator[DrawnPair]:
        """Pair the two episodes, unless all earned the same."""
        worst = min(find_ends(draft.stored), key=lambda end: end.reward)
        if worst.reward >= best.reward:
            draft.removed[EQUAL_VALUES] += 1
            return
        tree = draft.stored.tree
        first, second = (
            Valued(tree[end.node], end.reward, (*tree.steps(end.node), *end.rollout))
            for end in (best, worst)
        )
        yield draft.pair(History(head=draft.stored.header.head), Choice(first, second))


RULES: Mapping[str, PairRule] = {
    rule.name: rule
    for rule in (
        PaperRule(),
        AsReleasedRule(),
        AllSiblingsRule(),
        AdjacentRule(),
        TrajectoryRule(),
    )
}


def _siblings(tree: SearchTree, node: Node) -> list[int]:
    """Return the children of a node's parent, the node among them."""
    return tree[node.parent].children if node.parent is not None else []


def _ranked_siblings(draft: Draft) -> Iterator[tuple[History, list[Valued]]]:
    """Return each node's history and its valued children, best first; ties in sampling order."""
    tree = draft.stored.tree
    for node in tree.nodes:
        if not node.children:
            continue
        valued = [
            Valued(tree[child], q)
            for child in node.children
            if (q := tree.q_hat(child)) is not None
        ]
        draft.removed[UNVISITED_SIBLING] += len(node.children) - len(valued)
        history = History(head=draft.stored.header.head)
        for step in tree.steps(node.index):
            history = extend_history(history, step)
        yield history, sorted(valued, key=lambda each: -each.q)
