"""Rules that pick one of n proposed actions; only the picked one is executed."""

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lit_qagent.core.actions import canonical_action
from lit_qagent.core.errors import ConfigError
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
    """

    index: int
    scores: tuple[float, ...] | None = None


class Selector(ABC):
    """A rule that picks among n proposals."""

    needs_scorer: ClassVar[bool] = False

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
    """Takes the action proposed most often; ties go to the earlier proposal."""

    async def select(
        self,
        history: History,
        proposals: Sequence[Proposal],
        *,
        rng: random.Random,
        scorer: Scorer | None = None,
    ) -> Selection:
        """Pick the most frequent action."""
        keys = [canonical_action(proposal.text) for proposal in proposals]
        [(winner, _)] = Counter(keys).most_common(1)
        return Selection(index=keys.index(winner))


class QSelector(Selector):
    """Takes the action of highest Q (METHOD: ``argmax Q(u, tau_t, a)``); equal ones scored once."""

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
        """
        if scorer is None:
            raise ConfigError("QSelector needs a Q-model; give a checkpoint to predict")
        distinct: dict[str, str] = {}
        for proposal in proposals:
            distinct.setdefault(canonical_action(proposal.text), proposal.text)
        values = await scorer.score(history, list(distinct.values()))
        value_of = dict(zip(distinct, values, strict=True))
        scores = tuple(value_of[canonical_action(proposal.text)] for proposal in proposals)
        return Selection(index=scores.index(max(scores)), scores=scores)
