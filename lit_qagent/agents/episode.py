"""Plays one episode: one decision, one environment step, until the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_qagent.agents.guided import Decision, GuidedAgent
from lit_qagent.agents.oracle import TrueReturns
from lit_qagent.agents.prompts import extend_history, start_history
from lit_qagent.agents.selection import OracleSelector
from lit_qagent.core.records import History, Task, Trajectory, Usage
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.base import Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """A played episode.

    Attributes:
        trajectory: What happened in the world.
        decisions: One per step, what was proposed, scored and picked.
        history: The chat at the end.
        usage: What the policy cost in this episode, earlier trials and look-ahead included.
        extra_steps: Environment steps besides those of the trajectory; 0 for every agent that
            acts in earnest, in a single trial.
        num_trials: Trials played, this one included.
    """

    trajectory: Trajectory
    decisions: tuple[Decision, ...]
    history: History
    usage: Usage
    extra_steps: int = 0
    num_trials: int = 1

    @property
    def dropped_steps(self) -> int:
        """Steps left out of prompts because the context was too short, over all decisions."""
        return sum(decision.proposed.dropped_steps for decision in self.decisions)


async def play_episode(
    agent: GuidedAgent,
    environment: Environment,
    task: Task,
    *,
    seed: int,
    notes: Sequence[str] = (),
) -> Episode:
    """Play a task from reset to the end in a branch of its own.

    Args:
        agent: Who decides.
        environment: The world; it is forked, not touched.
        task: What to play.
        seed: Decision t samples with a seed derived from this one, the task and t, so agents
            that sample alike see the same draws.
        notes: What earlier trials have taught.

    Raises:
        PolicyFailure: The policy gave no answer.
    """
    branch = environment.fork()
    branch.reset(task)
    history = start_history(branch, agent.prompt)
    decisions: list[Decision] = []
    usage = Usage()
    extra_steps = 0
    while not branch.is_over:
        decision_seed = derive_seed(seed, task.task_id, len(decisions))
        oracle = None
        if isinstance(agent.selector, OracleSelector):
            oracle = TrueReturns(agent, branch, agent.selector.rollouts, seed=decision_seed)
        decision = await agent.decide(
            history, branch.observation, seed=decision_seed, notes=notes, scorer=oracle
        )
        decision.proposed.count(usage)
        if oracle:
            usage.add(**oracle.usage.to_dict())
            extra_steps += oracle.num_steps
        decisions.append(decision)
        history = extend_history(history, await branch.act(decision.action))
    return Episode(
        trajectory=branch.trajectory,
        decisions=tuple(decisions),
        history=history,
        usage=usage,
        extra_steps=extra_steps,
    )
