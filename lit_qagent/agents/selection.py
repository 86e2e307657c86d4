"""Rules that pick one of n proposed actions; only the picked one is executed."""

import math
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lit_qagent.core.actions import canonical_action, canonical_command
from lit_qagent.core.errors import ConfigError, ModelError
from lit_qagent.core.records import History, Proposal


class Scorer(Protocol):
    """Anything that gives a value to each candidate action after a history."""

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        """Return one value per candidate, higher is better."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The picked proposal.

    Attributes:
        index: Position among the proposals.
        scores: One value per proposal if the rule computes values, else None.
        returns: An oracle's single rollouts: per proposal the true rewards whose mean its score
            is. None of any other rule.
    """

    index: int
    scores: tuple[float, ...] | None = None
    returns: tuple[tuple[float, ...], ...] | None = None


class Selector(ABC):
    """A rule that picks among n proposals.

    Attributes:
        needs_scorer: True if it needs a Q-model.
        uses: What the rule knows that no agent can know in earnest, such as ``the true reward``;
            every report says it. Empty for an honest rule.
        min_candidates: Fewest actions per decision that the rule makes sense with.
    """

    needs_scorer: ClassVar[bool] = False
    uses: ClassVar[str] = ""
    min_candidates: ClassVar[int] = 1

    def check_budget(self, num_candidates: int) -> None:
        """Refuse an agent that samples too few actions for this rule.

        Raises:
            ConfigError: It samples fewer than ``min_candidates``.
        """
        if num_candidates < self.min_candidates:
            raise ConfigError(
                f"num_candidates must be >= {self.min_candidates} for {type(self).__name__}, "
                f"got {num_candidates}; raise it or take another selector"
            )

    def num_first(self, budget: int) -> int:
        """Return how many proposals to sample at first; ``budget`` is the most for one decision."""
        return budget

    def num_more(self, selection: Selection, proposals: Sequence[Proposal], budget: int) -> int:
        """Return how many more proposals to sample before one is executed; 0 lets it stand.

        Args:
            selection: What the rule picks from the proposals so far.
            proposals: The proposals so far.
            budget: Most proposals for one decision.
        """
        return 0

    @abstractmethod
    async def select(
        self,
        history: History,
        proposals: Sequence[Proposal],
        *,
        rng: random.Random,
        scorer: Scorer | None = None,
    ) -> Selection:
        """Pick one of at least one proposal."""


class FirstSelector(Selector):
    """Takes the first proposal: the plain agent."""

    async def select(
        self,
        history: History,
        proposals: Sequence[Proposal],
        *,
        rng: random.Random,
        scorer: Scorer | None = None,
    ) -> Selection:
        """Pick the first."""
        return Selection(index=0)


class RandomSelector(Selector):
    """Takes a random proposal: the control that costs as many samples as Q guidance."""

    async def select(
        self,
        history: History,
        proposals: Sequence[Proposal],
        *,
        rng: random.Random,
        scorer: Scorer | None = None,
    ) -> Selection:
        """Pick uniformly."""
        return Selection(index=rng.randrange(len(proposals)))


class MajoritySelector(Selector):
    """Takes the command proposed most often; ties go to the earlier proposal.

    Thoughts do not count: hardly two are equal, so every message would be one of a kind.
    """

    async def select(
        self,
        history: History,
        proposals: Sequence[Proposal],
        *,
        rng: random.Random,
        scorer: Scorer | None = None,
    ) -> Selection:
        """Pick the first proposal of the most frequent command."""
        keys = [canonical_command(proposal.text) for proposal in proposals]
        [(winner, _)] = Counter(keys).most_common(1)
        return Selection(index=keys.index(winner))


class QSelector(Selector):
    """Takes the action of highest Q (METHOD: ``argmax Q(u, tau_t, a)``); equal ones scored once.

    Equal is the whole message, as the Q-model reads the thought too.
    """

    needs_scorer: ClassVar[bool] = True

    async def select(
        self,
        history: History,
        proposals: Sequence[Proposal],
        *,
        rng: random.Random,
        scorer: Scorer | None = None,
    ) -> Selection:
        """Pick the highest value; ties go to the earlier proposal.

        Raises:
            ConfigError: No scorer was given.
            ModelError: A value is not finite.
        """
        if scorer is None:
            raise ConfigError("QSelector needs a Q-model; give a checkpoint to predict")
        distinct: dict[str, str] = {}
        for proposal in proposals:
            distinct.setdefault(canonical_action(proposal.text), proposal.text)
        values = await finite_scores(scorer, history, list(distinct.values()))
        value_of = dict(zip(distinct, values, strict=True))
        scores = tuple(value_of[canonical_action(proposal.text)] for proposal in proposals)
        return Selection(index=scores.index(max(scores)), scores=scores)


class MostLikelySelector(Selector):
    """Takes the action that the policy itself finds most likely, by mean log-probability per token.

    The mean, as a sum would always favour short actions.
    """

    async def select(
        self,
        history: History,
        proposals: Sequence[Proposal],
        *,
        rng: random.Random,
        scorer: Scorer | None = None,
    ) -> Selection:
        """Pick the most likely; ties go to the earlier proposal.

        Raises:
            ConfigError: The policy reports no log-probabilities.
        """
        scores = tuple(_mean_log_prob(proposal) for proposal in proposals)
        return Selection(index=scores.index(max(scores)), scores=scores)


class AdaptiveQSelector(QSelector):
    """Takes the action of highest Q, and samples more while the two best are close.

    The agent's ``num_candidates`` is the budget of one decision. Each further batch is one more
    request; what was sampled and scored before is kept.

    Args:
        first: Proposals in the first batch, at least two: one alone would always be clear.
        more: Proposals in each further batch.
        margin: Sampling ends once the best action's Q exceeds the next one's by this much.

    Raises:
        ConfigError: A value is out of range.
    """

    min_candidates: ClassVar[int] = 2

    def __init__(self, first: int = 2, more: int = 1, margin: float = 0.1) -> None:
        if first < 2:
            raise ConfigError(
                f"AdaptiveQSelector.first must be >= 2, got {first}: it samples more while the two "
                "best actions are close, and of one action it never would; raise it"
            )
        if more < 1:
            raise ConfigError(f"AdaptiveQSelector.more must be >= 1, got {more}")
        if margin < 0:
            raise ConfigError(f"AdaptiveQSelector.margin must be >= 0, got {margin}")
        self.first = first
        self.more = more
        self.margin = margin

    def num_first(self, budget: int) -> int:
        """Return the size of the first batch."""
        return min(self.first, budget)

    def num_more(self, selection: Selection, proposals: Sequence[Proposal], budget: int) -> int:
        """Return the size of the next batch, 0 if the best action is clear or the budget spent.

        One command alone, however often proposed and with whatever thoughts, is clear: the policy
        is sure of it. Of several messages with one command the best one counts.
        """
        value_of: dict[str, float] = {}
        for proposal, score in zip(proposals, selection.scores or (), strict=True):
            command = canonical_command(proposal.text)
            value_of[command] = max(score, value_of.get(command, score))
        best, *others = sorted(value_of.values(), reverse=True)
        if not others or best - others[0] >= self.margin:
            return 0
        return min(self.more, budget - len(proposals))


class OracleSelector(QSelector):
    """Takes the action behind which sampled episodes truly ended best: a bound, not an agent.

    Its values come from the world and not from a Q-model: `lit_qagent.agents.oracle.TrueReturns`.

    Args:
        rollouts: Times that the policy plays on from each action to the end; the value is the
            mean of the true rewards. With one alone, reports overstate the regret of the agents.

    Raises:
        ConfigError: ``rollouts`` is below 1.
    """

    needs_scorer: ClassVar[bool] = False
    uses: ClassVar[str] = "the true reward"

    def __init__(self, rollouts: int = 1) -> None:
        if rollouts < 1:
            raise ConfigError(f"OracleSelector.rollouts must be >= 1, got {rollouts}")
        self.rollouts = rollouts


async def finite_scores(scorer: Scorer, history: History, candidates: Sequence[str]) -> list[float]:
    """Return a scorer's values; the highest of values with a NaN among them is any of them.

    Raises:
        ModelError: A value is not finite, or there is not one for each candidate.
    """
    values = await scorer.score(history, candidates)
    if len(values) != len(candidates):
        raise ModelError(
            f"{type(scorer).__name__} gave {len(values)} values for {len(candidates)} candidates; "
            "a scorer gives one each"
        )
    for candidate, value in zip(candidates, values, strict=True):
        if not math.isfinite(value):
            raise ModelError(
                f"the Q-model gives the value of {value} to candidate {candidate!r} after "
                f"{history.num_steps} steps; its weights or its numbers are broken: try another "
                "checkpoint, or dtype float32"
            )
    return values


def _mean_log_prob(proposal: Proposal) -> float:
    if proposal.log_prob is None:
        raise ConfigError(
            "MostLikelySelector needs log-probabilities, and this policy reports none; take a "
            "policy that does (VLLMPolicy with log_probs true, TransformersPolicy among legal "
            "actions) or another selector"
        )
    return proposal.log_prob / max(proposal.num_tokens, 1)
