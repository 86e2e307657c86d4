"""An agent is a policy and a selector: propose n, pick one."""

import random
from dataclasses import dataclass

from lit_qagent.agents.prompts import PromptSpec, action_constraint
from lit_qagent.agents.selection import Scorer, Selection, Selector
from lit_qagent.core.errors import ConfigError, ContextOverflow
from lit_qagent.core.records import Constraint, History, Observation, Proposal, Sampling
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

    @property
    def requests(self) -> int:
        """Requests it took, those of re-prompts included."""
        return 1 + sum(proposal.extra.requests for proposal in self.proposals)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the shared prompt, and of the prompts of re-prompts."""
        extra = sum(proposal.extra.prompt_tokens for proposal in self.proposals)
        return self.proposals[0].prompt_tokens + extra

    @property
    def generated_tokens(self) -> int:
        """Tokens of all proposals, and of answers that a re-prompt replaced."""
        return sum(each.num_tokens + each.extra.generated_tokens for each in self.proposals)


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
) -> Proposals:
    """Ask a policy for n actions, leaving out the oldest steps if the prompt is too long.

    Raises:
        ContextOverflow: The prompt is too long even without any earlier step.
        PolicyFailure: The policy gave no answer.
    """
    shown = history
    while True:
        try:
            answers = await policy.propose(
                shown.messages, n, sampling, constraint=constraint, seed=seed
            )
        except ContextOverflow:
            if not shown.num_steps:
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
        if self.num_candidates < 1:
            raise ConfigError(f"num_candidates must be >= 1, got {self.num_candidates}")

    async def decide(self, history: History, observation: Observation, *, seed: int) -> Decision:
        """Propose and pick; nothing is executed here."""
        proposed = await propose_actions(
            self.policy,
            history,
            self.num_candidates,
            self.sampling,
            constraint=action_constraint(observation, self.prompt),
            seed=seed,
        )
        selection = await self.selector.select(
            history, proposed.proposals, rng=random.Random(seed), scorer=self.scorer
        )
        return Decision(proposed=proposed, selection=selection)
