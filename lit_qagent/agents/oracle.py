"""True values of candidate actions, for upper bounds: the world is forked and played to its end."""

from collections.abc import Sequence
from statistics import fmean

from lit_qagent.agents.guided import GuidedAgent, propose_actions
from lit_qagent.agents.prompts import action_constraint, extend_history
from lit_qagent.core.actions import canonical_action
from lit_qagent.core.records import History, Proposal, Usage
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.base import Environment


class TrueReturns:
    """A scorer that knows the true reward; no agent can have one in earnest.

    The value of an action is the mean true reward of episodes that begin with it and that the
    policy then plays to the end, one action per decision. Implements
    `lit_qagent.agents.selection.Scorer` for one decision.

    Args:
        agent: Whose policy plays on.
        branch: The world before the decision; it is forked, not touched.
        rollouts: Episodes per action.
        seed: Every action's episodes draw alike.

    Attributes:
        usage: What playing on has cost.
        num_steps: Environment steps taken.
        dropped_steps: Steps left out of prompts because the context was too short.
        cut_candidates: Actions that the token limit cut.
    """

    def __init__(
        self, agent: GuidedAgent, branch: Environment, rollouts: int, *, seed: int
    ) -> None:
        self.usage = Usage()
        self.num_steps = 0
        self.dropped_steps = 0
        self.cut_candidates = 0
        self._agent = agent
        self._branch = branch
        self._rollouts = rollouts
        self._seed = seed
        self._returns: dict[str, tuple[float, ...]] = {}

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        """Return the mean true reward behind each candidate.

        Raises:
            PolicyFailure: The policy gave no answer.
        """
        for candidate in candidates:
            returns = await self._sample_returns(history, candidate)
            self._returns[canonical_action(candidate)] = returns
        return [fmean(self._returns[canonical_action(candidate)]) for candidate in candidates]

    def returns_of(self, proposals: Sequence[Proposal]) -> tuple[tuple[float, ...], ...]:
        """Return the true reward of each rollout behind each proposal that was scored."""
        return tuple(self._returns[canonical_action(proposal.text)] for proposal in proposals)

    async def _sample_returns(self, history: History, candidate: str) -> tuple[float, ...]:
        branch = self._branch.fork()
        after = extend_history(history, await branch.act(candidate))
        self.num_steps += 1
        if branch.is_over:
            return (branch.trajectory.reward,) * self._rollouts
        rewards = [
            await self._play_on(after, branch.fork(), derive_seed(self._seed, "rollout", number))
            for number in range(self._rollouts)
        ]
        return tuple(rewards)

    async def _play_on(self, history: History, branch: Environment, seed: int) -> float:
        """Return the reward at the end of one episode; the first proposal is always taken."""
        agent, num_steps = self._agent, 0
        while not branch.is_over:
            proposed = await propose_actions(
                agent.policy,
                history,
                1,
                agent.sampling,
                constraint=action_constraint(branch.observation, agent.prompt),
                seed=derive_seed(seed, num_steps),
            )
            self.usage.add(proposed.cost)
            self.dropped_steps += proposed.dropped_steps
            self.cut_candidates += proposed.num_cut
            history = extend_history(history, await branch.act(proposed.proposals[0].text))
            num_steps += 1
        self.num_steps += num_steps
        return branch.trajectory.reward
