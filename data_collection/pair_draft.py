"""What pair rules work with: ends, values, choices, and the pair that a choice becomes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_collection.tree import ROOT, Node
from data_collection.tree_file import StoredTree
from lit_qagent.core.pairs import ChatMessages, PreferencePair
from lit_qagent.core.records import History, Step


class BestEnd(NamedTuple):
    """The reward of an end that a search saw, and the last node of its path."""

    reward: float
    node: int
    rollout: tuple[Step, ...] = ()


class Valued(NamedTuple):
    """A node and the value that a rule gives to its action, or to a whole episode."""

    node: Node
    q: float
    episode: tuple[Step, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """What is preferred or not: the node's step, or the episode."""
        if self.episode or self.node.step is None:
            return self.episode
        return (self.node.step,)


class Choice(NamedTuple):
    """The two that a rule picks."""

    chosen: Valued
    rejected: Valued


class DrawnPair(NamedTuple):
    """A pair, and whether the world could carry both of its actions out."""

    pair: PreferencePair
    is_chosen_valid: bool
    is_rejected_valid: bool


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What a rule made of one tree.

    Attributes:
        pairs: In order of depth along a path, or in the order of the nodes.
        removed: What was left out: reason to count.
    """

    pairs: tuple[DrawnPair, ...]
    removed: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What the pairs of a store have in common.

    Attributes:
        environment: Name of the world.
        prompt_version: Version of texts and prompt.
    """

    environment: str
    prompt_version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """One tree while a rule draws its pairs.

    Attributes:
        stored: The tree.
        labels: What its pairs have in common with those of other trees.
        rule: Name of the rule.
        removed: What was left out so far.
    """

    stored: StoredTree
    labels: Labels
    rule: str
    removed: Counter[str]

    def pair(self, history: History, choice: Choice) -> DrawnPair:
        """Return a pair after a history."""
        chosen, rejected = choice
        pair = PreferencePair(
            prompt=[message.to_dict() for message in history.messages],
            chosen=_messages(chosen.steps),
            rejected=_messages(rejected.steps),
            task_id=self.stored.header.task_id,
            tree_id=self.stored.header.tree_id,
            depth=history.num_steps,
            q_chosen=chosen.q,
            q_rejected=rejected.q,
            visits_chosen=chosen.node.visits,
            visits_rejected=rejected.node.visits,
            rule=self.rule,
            environment=self.labels.environment,
            prompt_version=self.labels.prompt_version,
        )
        return DrawnPair(pair, _is_valid(chosen.steps), _is_valid(rejected.steps))


def find_best_end(stored: StoredTree) -> BestEnd | None:
    """Return the end of highest reward, the earliest of equal ones; None if no episode ended."""
    return max(find_ends(stored), key=lambda end: end.reward, default=None)


def find_ends(stored: StoredTree) -> Iterator[BestEnd]:
    """Return every end that the search saw, in the order in which it saw them."""
    tree = stored.tree
    next_index = ROOT + 1
    for iteration in stored.iterations:
        for step in iteration.children:
            if step.is_last:
                yield BestEnd(tree.outcome(step), next_index)
            next_index += 1
        if iteration.rollout:
            reward = tree.outcome(iteration.rollout[-1])
            yield BestEnd(reward, iteration.evaluated, iteration.rollout)
    # The nodes of a tree that was imported come without iterations.
    for node in tree.nodes[next_index:]:
        if node.step is not None and node.is_terminal:
            yield BestEnd(tree.outcome(node.step), node.index)


def _messages(steps: Sequence[Step]) -> ChatMessages:
    """Return actions, with the observations between them."""
    messages: ChatMessages = []
    for step in steps:
        messages.append({"role": "assistant", "content": step.action})
        messages.append({"role": "user", "content": step.observation.text})
    return messages[:-1]


def _is_valid(steps: Sequence[Step]) -> bool:
    return all(step.valid for step in steps)
