"""Plays one episode: one decision, one environment step, until the end."""

from dataclasses import dataclass

from lit_qagent.agents.guided import Decision, GuidedAgent
from lit_qagent.agents.prompts import extend_history, start_history
from lit_qagent.core.records import Task, Trajectory, Usage
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.base import Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """A played episode.

    Attributes:
        trajectory: What happened in the world.
        decisions: One per step, what was proposed, scored and picked.
        usage: What the policy cost in this episode.
    """

    trajectory: Trajectory
    decisions: tuple[Decision, ...]
    usage: Usage

    @property
    def dropped_steps(self) -> int:
        """Steps left out of prompts because the context was too short, over all decisions."""
        return sum(decision.proposed.dropped_steps for decision in self.decisions)


async def play_episode(
    agent: GuidedAgent, environment: Environment, task: Task, *, seed: int
) -> Episode:
    """Play a task from reset to the end in a branch of its own.

    Args:
        agent: Who decides.
        environment: The world; it is forked, not touched.
        task: What to play.
        seed: Decision t samples with a seed derived from this one, the task and t, so agents
            that sample alike see the same draws.

    Raises:
        PolicyFailure: The policy gave no answer.
    """
    branch = environment.fork()
    branch.reset(task)
    history = start_history(branch, agent.prompt)
    decisions: list[Decision] = []
    usage = Usage()
    while not branch.is_over:
        decision = await agent.decide(
            history,
            branch.observation,
            seed=derive_seed(seed, task.task_id, len(decisions)),
        )
        usage.add(
            requests=decision.proposed.requests,
            prompt_tokens=decision.proposed.prompt_tokens,
            generated_tokens=decision.proposed.generated_tokens,
        )
        decisions.append(decision)
        history = extend_history(history, await branch.act(decision.action))
    return Episode(trajectory=branch.trajectory, decisions=tuple(decisions), usage=usage)
