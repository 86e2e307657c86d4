"""The variants of the search: where to look first, and what a new leaf is worth.

| variant | first look | value of a leaf | uses the true reward |
| --- | --- | --- | --- |
| ``uct`` | first sample | outcome of one rollout of the policy | in every evaluation |
| ``puct`` | highest Q | outcome of one rollout of the policy | in every evaluation |
| ``q_rollout`` | first sample | outcome of a rollout guided by Q | in every evaluation |
| ``q_value`` | highest Q | its Q value | only at ends in the tree |
| ``lats`` | highest first value | outcome of one rollout | in every evaluation and reflection |
| ``q_only`` | highest Q | its Q value, of ends too | nowhere |
| ``score_only`` | highest first value | that value | nowhere |

All of them use it once more to stop early, unless ``stop_at_success`` is false.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from data_collection.asking import Asking
from data_collection.expansion import Candidates
from data_collection.spec import SearchSpec
from data_collection.uct import Selection
from data_collection.world import Branch, act
from lit_qagent.agents.prompts import extend_history
from lit_qagent.agents.selection import Scorer, finite_scores
from lit_qagent.core.actions import canonical_action
from lit_qagent.core.records import SUCCESS_REWARD, History, Step
from lit_qagent.environments.base import Environment

_NO_SCORE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a variant found out about the children of a leaf.

    Attributes:
        offset: Which child was evaluated.
        rollout: Steps from there to the end, if there was a rollout.
        value: What to back up instead of an outcome; None takes the outcome.
        priors: First value of each child; none for variants without.
        reflection: What later iterations should keep in mind.
    """

    offset: int = 0
    rollout: tuple[Step, ...] = ()
    value: float | None = None
    priors: tuple[float, ...] = ()
    reflection: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expanded:
    """A leaf with its children, before they are in the tree.

    Attributes:
        history: The chat up to the leaf.
        children: One branch of the world per distinct action.
        candidates: The actions, and how often each was proposed.
    """

    history: History
    children: Sequence[Branch]
    candidates: Candidates

    @property
    def actions(self) -> list[str]:
        """The distinct actions."""
        return [child.step.action for child in self.children]


class Variant:
    """The paper's search: the first sample is evaluated by one rollout of the policy.

    Args:
        spec: How to search.
        scorer: The Q-model, where one is needed.
        step_timeout_s: See `SearchSetup`.
    """

    selection: ClassVar[Selection] = "uct"
    needs_scorer: ClassVar[bool] = False
    uses_reward: ClassVar[bool] = True

    def __init__(
        self, spec: SearchSpec, scorer: Scorer | None = None, step_timeout_s: float | None = None
    ) -> None:
        self.spec = spec
        self.scorer = scorer
        self.step_timeout_s = step_timeout_s

    async def evaluate(self, asking: Asking, leaf: Expanded) -> Evaluation:
        """Find out what the children are worth."""
        return Evaluation(rollout=await self._roll_out(asking, leaf, 0))

    async def _roll_out(self, asking: Asking, leaf: Expanded, offset: int) -> tuple[Step, ...]:
        """Let the policy play from a child to the end of the episode."""
        child = leaf.children[offset]
        if child.step.is_last:
            return ()
        branch = child.environment.fork()
        history = extend_history(leaf.history, child.step)
        steps: list[Step] = []
        while not (steps and steps[-1].is_last):
            action = await self._next_action(asking, history, branch, len(steps))
            acted = await act(branch, action, self.step_timeout_s)
            steps.append(acted.step)
            history = extend_history(history, steps[-1])
        return tuple(steps)

    async def _next_action(
        self, asking: Asking, history: History, branch: Environment, step: int
    ) -> str:
        """Return the action of a rollout."""
        proposals = await asking.propose(history, branch.observation, 1, "rollout", step)
        return proposals[0].text

    async def _q_values(self, history: History, actions: Sequence[str]) -> list[float]:
        assert self.scorer is not None  # SearchSetup sees to it
        return await finite_scores(self.scorer, history, actions)


class Puct(Variant):
    """A Q-model gives each action a prior; rollouts as usual."""

    selection = "puct"
    needs_scorer = True

    async def evaluate(self, asking: Asking, leaf: Expanded) -> Evaluation:
        """Roll out the child of highest Q."""
        values = await self._q_values(leaf.history, leaf.actions)
        priors = softmax(values, self.spec.prior_temperature)
        offset = _first_best(priors)
        rollout = await self._roll_out(asking, leaf, offset)
        return Evaluation(offset=offset, rollout=rollout, priors=priors)


class QRollout(Variant):
    """Rollouts are played as a Q-guided agent plays: n samples, the one of highest Q acts."""

    needs_scorer = True

    async def _next_action(
        self, asking: Asking, history: History, branch: Environment, step: int
    ) -> str:
        n = self.spec.num_candidates
        proposals = await asking.propose(history, branch.observation, n, "rollout", step)
        distinct: dict[str, str] = {}
        for proposal in proposals:
            distinct.setdefault(canonical_action(proposal.text), proposal.text)
        actions = list(distinct.values())
        return actions[_first_best(await self._q_values(history, actions))]


class QValue(Variant):
    """No rollouts: the best child is worth its Q value, or its outcome if it is an end.

    Every child has its Q value as its first visit, so that none must be visited to be known.
    """

    selection = "valued"
    needs_scorer = True

    async def evaluate(self, asking: Asking, leaf: Expanded) -> Evaluation:
        """Score the children."""
        values = await self._q_values(leaf.history, leaf.actions)
        if self.spec.value_of_q == "sigmoid":
            values = [sigmoid(value) for value in values]
        offset = _first_best(values)
        has_outcome = self.uses_reward and leaf.children[offset].step.is_last
        value = None if has_outcome else values[offset]
        return Evaluation(offset=offset, value=value, priors=tuple(values))


class QOnly(QValue):
    """As `QValue`, and ends are worth their Q value too: for acting without the true reward."""

    uses_reward = False


class Lats(Variant):
    """The policy scores each new action, and a failed episode becomes a note for later ones."""

    selection = "valued"

    async def evaluate(self, asking: Asking, leaf: Expanded) -> Evaluation:
        """Score the children, roll out the best, reflect if it failed."""
        priors = await self._first_values(asking, leaf)
        offset = _first_best(priors)
        rollout = await self._roll_out(asking, leaf, offset)
        steps = (leaf.children[offset].step, *rollout)
        reflection = ""
        if steps[-1].reward < SUCCESS_REWARD:
            history = leaf.history
            for step in steps:
                history = extend_history(history, step)
            reflection = await asking.reflect(history, steps[-1].reward)
        return Evaluation(offset=offset, rollout=rollout, priors=priors, reflection=reflection)

    async def _first_values(self, asking: Asking, leaf: Expanded) -> tuple[float, ...]:
        return tuple([await self._first_value(asking, leaf, i) for i in range(len(leaf.actions))])

    async def _first_value(self, asking: Asking, leaf: Expanded, offset: int) -> float:
        """Mix the policy's own score with the share of samples that agree."""
        action = leaf.actions[offset]
        score = await asking.score(leaf.history, action, offset)
        share = leaf.candidates[action] / sum(leaf.candidates.values())
        weight = self.spec.score_weight
        return weight * (_NO_SCORE if score is None else score) + (1 - weight) * share


class ScoreOnly(Lats):
    """The first values of LATS alone, no rollouts, no notes: for acting without the true reward."""

    uses_reward = False

    async def evaluate(self, asking: Asking, leaf: Expanded) -> Evaluation:
        """Score the children."""
        priors = await self._first_values(asking, leaf)
        offset = _first_best(priors)
        return Evaluation(offset=offset, value=priors[offset], priors=priors)


VARIANTS: Mapping[str, type[Variant]] = {
    "uct": Variant,
    "puct": Puct,
    "q_rollout": QRollout,
    "q_value": QValue,
    "lats": Lats,
    "q_only": QOnly,
    "score_only": ScoreOnly,
}


def softmax(values: Sequence[float], temperature: float) -> tuple[float, ...]:
    """Return positive shares that add up to 1.

    Examples:
        >>> softmax([1.0, 1.0], 0.5)
        (0.5, 0.5)
    """
    top = max(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def sigmoid(value: float) -> float:
    """Return ``1 / (1 + exp(-value))``.

    Examples:
        >>> sigmoid(0.0), sigmoid(-1000.0)
        (0.5, 0.0)
    """
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    power = math.exp(value)
    return power / (1 + power)


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
