"""Rules that turn one search tree into preference pairs (METHOD: build preference pairs).

Both walk the path to the best end the search saw: an end in the tree, or the end of a rollout,
whose path runs through the tree to the evaluated child. A tree whose best end earned nothing
gives no pair: it does not show which action is good.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from data_collection.tree import ROOT, Node, SearchTree
from data_collection.tree_file import StoredTree
from lit_qagent.agents.prompts import extend_history
from lit_qagent.core.pairs import ChatMessages, PreferencePair
from lit_qagent.core.records import History, Message

# Reasons for leaving something out, as they stand in the card.
NO_POSITIVE_REWARD = "trees_without_positive_reward"
NO_SIBLING = "depths_without_valued_sibling"
UNVISITED_SIBLING = "siblings_never_visited"
SAME_CHILD = "depths_where_best_and_worst_are_one"


class BestEnd(NamedTuple):
    """The highest reward a search saw, and the last node of its path."""

    reward: float
    node: int


class Valued(NamedTuple):
    """A node and the value that a rule gives to its action."""

    node: Node
    q: float


class Choice(NamedTuple):
    """The two siblings that a rule picks."""

    chosen: Valued
    rejected: Valued


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What a rule made of one tree.

    Attributes:
        pairs: In order of depth.
        removed: What was left out: reason to count.
    """

    pairs: tuple[PreferencePair, ...]
    removed: Mapping[str, int]


class PairRule(ABC):
    """Picks the better and the worse action at each depth of the best path."""

    name: ClassVar[str]

    @abstractmethod
    def choose(self, tree: SearchTree, on_path: Node, removed: Counter[str]) -> Choice | None:
        """Pick among a node of the path and its siblings; count why if there is no pair."""

    def show(self, head: Sequence[Message]) -> tuple[Message, ...]:
        """Return what of the chat before the first action goes into prompts."""
        return tuple(head)

    def extract(self, stored: StoredTree, *, environment: str, prompt_version: str) -> Extraction:
        """Return the pairs of one tree.

        Args:
            stored: The tree.
            environment: Name of the world, for the pairs' labels.
            prompt_version: Version of texts and prompt, for the pairs' labels.
        """
        removed: Counter[str] = Counter()
        best = find_best_end(stored)
        if best is None or best.reward <= 0:
            removed[NO_POSITIVE_REWARD] += 1
            return Extraction(pairs=(), removed=removed)
        tree = stored.tree
        history = History(head=self.show(stored.header.head))
        pairs = []
        for node in tree.path(best.node):
            if node.step is None:
                continue
            choice = self.choose(tree, node, removed)
            if choice is not None:
                pairs.append(
                    _make_pair(
                        stored,
                        history,
                        choice,
                        rule=self.name,
                        environment=environment,
                        prompt_version=prompt_version,
                    )
                )
            history = extend_history(history, node.step)
        return Extraction(pairs=tuple(pairs), removed=removed)


class PaperRule(PairRule):
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


class AsReleasedRule(PairRule):
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
        """Return the system message and the task."""
        return (head[0], head[-1])


RULES: Mapping[str, PairRule] = {rule.name: rule for rule in (PaperRule(), AsReleasedRule())}


def find_best_end(stored: StoredTree) -> BestEnd | None:
    """Return the end of highest reward, the earliest of equal ones; None if no episode ended."""
    return max(_ends(stored), key=lambda end: end.reward, default=None)


def _ends(stored: StoredTree) -> Iterator[BestEnd]:
    """Return every end that the search saw, in the order in which it saw them."""
    tree = stored.tree
    next_index = ROOT + 1
    for iteration in stored.iterations:
        for step in iteration.children:
            if step.is_last:
                yield BestEnd(tree.outcome(step), next_index)
            next_index += 1
        if iteration.rollout:
            yield BestEnd(tree.outcome(iteration.rollout[-1]), iteration.evaluated)


def _siblings(tree: SearchTree, node: Node) -> list[int]:
    """Return the children of a node's parent, the node among them."""
    return tree[node.parent].children if node.parent is not None else []


def _make_pair(
    stored: StoredTree,
    history: History,
    choice: Choice,
    *,
    rule: str,
    environment: str,
    prompt_version: str,
) -> PreferencePair:
    return PreferencePair(
        prompt=[message.to_dict() for message in history.messages],
        chosen=_action_of(choice.chosen.node),
        rejected=_action_of(choice.rejected.node),
        task_id=stored.header.task_id,
        tree_id=stored.header.tree_id,
        depth=history.num_steps,
        q_chosen=choice.chosen.q,
        q_rejected=choice.rejected.q,
        visits_chosen=choice.chosen.node.visits,
        visits_rejected=choice.rejected.node.visits,
        rule=rule,
        environment=environment,
        prompt_version=prompt_version,
    )


def _action_of(node: Node) -> ChatMessages:
    return [{"role": "assistant", "content": node.step.action if node.step else ""}]
