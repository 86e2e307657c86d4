"""An agent is a policy and a selector: propose n, pick one."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lit_qagent.agents.prompts import PromptSpec, action_constraint, add_notes
from lit_qagent.agents.selection import Scorer, Selection, Selector
from lit_qagent.core.errors import ContextOverflow
from lit_qagent.core.records import (
    Constraint,
    History,
    Observation,
    Proposal,
    RequestCost,
    Sampling,
    total_cost,
)
from lit_qagent.core.seeds import derive_seed
from lit_qagent.policies.base import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposals:
    """What the policy proposed for one decision.

    Attributes:
        proposals: At least one.
        dropped_steps: Oldest steps left out of the prompt because the context was too short.
    """

    proposals: tuple[Proposal, ...]
    dropped_steps: int = 0

    def joined(self, other: "Proposals") -> "Proposals":
        """Return these and then others for the same prompt, as one."""
        return Proposals(
            proposals=self.proposals + other.proposals,
            dropped_steps=max(self.dropped_steps, other.dropped_steps),
        )

    @property
    def cost(self) -> RequestCost:
        """What the policy has stated that they cost."""
        return total_cost(self.proposals)

    @property
    def num_cut(self) -> int:
        """How many of them the token limit cut."""
        return sum(proposal.finish_reason == "length" for proposal in self.proposals)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One decision of an agent: what was proposed and what was picked."""

    proposed: Proposals
    selection: Selection

    @property
    def action(self) -> str:
        """The action to execute."""
        return self.proposed.proposals[self.selection.index].text


async def propose_actions(
    policy: Policy,
    history: History,
    n: int,
    sampling: Sampling,
    *,
    constraint: Constraint | None,
    seed: int,
    min_steps: int = 0,
) -> Proposals:
    """Ask a policy for n actions, leaving out the oldest steps if the prompt is too long.

    Args:
        policy: Who is asked.
        history: The chat so far.
        n: Number of samples.
        sampling: How to sample.
        constraint: What an action may look like; None leaves it free.
        seed: Of the sampling.
        min_steps: Newest steps that are never left out; 1 where the last one holds a question.

    Raises:
        ContextOverflow: The prompt is too long even without any step that may be left out.
        PolicyFailure: The policy gave no answer.
    """
    shown = history
    while True:
        try:
            answers = await policy.propose(
                shown.messages, n, sampling, constraint=constraint, seed=seed
            )
        except ContextOverflow:
            if shown.num_steps <= min_steps:
                raise
            shown = shown.without_oldest_step()
            continue
        return Proposals(
            proposals=tuple(answers), dropped_steps=history.num_steps - shown.num_steps
        )


@dataclass(frozen=True, kw_only=True)
class GuidedAgent:
    """Samples n actions and picks one; every agent of a comparison is one of these.

    Attributes:
        policy: Who proposes.
        selector: The rule that picks.
        num_candidates: Samples per decision, one request.
        sampling: How to sample.
        prompt: How the world is shown.
        scorer: The Q-model, for selectors that need one.
    """

    policy: Policy
    selector: Selector
    num_candidates: int
    sampling: Sampling
    prompt: PromptSpec
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        self.selector.check_budget(self.num_candidates)

    async def decide(
        self,
        history: History,
        observation: Observation,
        *,
        seed: int,
        notes: Sequence[str] = (),
        scorer: Scorer | None = None,
        on_batch: Callable[[Proposals], None] | None = None,
    ) -> Decision:
        """Propose and pick; nothing is executed here.

        Args:
            history: The chat so far.
            observation: What the world said last.
            seed: Of the sampling; a further batch has one derived from it.
            notes: What earlier trials have taught. The policy reads them; the scorer does not, as
                it was trained on prompts without any.
            scorer: Gives values for this decision instead of the agent's own.
            on_batch: Gets each batch as soon as it is there, so that a decision that an error cuts
                off is paid for too.
        """
        source = scorer or self.scorer
        values = _Remembered(source) if source else None
        proposed: Proposals | None = None
        num_wanted = self.selector.num_first(self.num_candidates)
        while True:
            batch = await propose_actions(
                self.policy,
                add_notes(history, notes),
                num_wanted,
                self.sampling,
                constraint=action_constraint(observation, self.prompt),
                seed=derive_seed(seed, len(proposed.proposals)) if proposed else seed,
            )
            if on_batch is not None:
                on_batch(batch)
            proposed = proposed.joined(batch) if proposed else batch
            selection = await self.selector.select(
                history, proposed.proposals, rng=random.Random(seed), scorer=values
            )
            num_wanted = self.selector.num_more(selection, proposed.proposals, self.num_candidates)
            if num_wanted < 1:
                return Decision(proposed=proposed, selection=selection)


class _Remembered:
    """Asks a scorer once for each candidate of one decision."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._values: dict[str, float] = {}

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        new = [text for text in candidates if text not in self._values]
        if new:
            values = await self._scorer.score(history, new)
            self._values |= dict(zip(new, values, strict=True))
        return [self._values[text] for text in candidates]
