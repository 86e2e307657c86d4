"""Plays one episode: one decision, one environment step, until the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lit_qagent.agents.guided import Decision, GuidedAgent, Proposals
from lit_qagent.agents.oracle import TrueReturns
from lit_qagent.agents.prompts import extend_history, start_history
from lit_qagent.agents.selection import OracleSelector
from lit_qagent.core.errors import EnvironmentFailure, PolicyFailure
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
        dropped_steps: Steps left out of prompts because the context was too short, in all that
            ``usage`` counts.
        cut_candidates: Actions that the token limit cut, in all that ``usage`` counts.
    """

    trajectory: Trajectory
    decisions: tuple[Decision, ...]
    history: History
    usage: Usage
    extra_steps: int = 0
    num_trials: int = 1
    dropped_steps: int = 0
    cut_candidates: int = 0


class EpisodeCut(Exception):
    """An error of the policy or the world, its cause, has cut an episode.

    Attributes:
        episode: What was played until then, with its cost.
    """

    def __init__(self, episode: Episode) -> None:
        super().__init__(f"cut after {len(episode.decisions)} steps")
        self.episode = episode


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
        EpisodeCut: The policy gave no answer, or the world broke, after the first observation.
        EnvironmentFailure: The world broke before it.
    """
    branch = environment.fork()
    branch.reset(task)
    return await _play_on(
        agent, branch, _Played(history=start_history(branch, agent.prompt)), task, seed, notes
    )


async def play_from(
    agent: GuidedAgent, branch: Environment, task: Task, start: Episode, *, seed: int
) -> Episode:
    """Play an episode that has begun to its end.

    Args:
        agent: Who decides.
        branch: The world where the episode stands; it is stepped.
        task: What is played.
        start: What was played until now, with its cost; its usage is added to.
        seed: See `play_episode`.

    Raises:
        EpisodeCut: The policy gave no answer, or the world broke.
    """
    played = _Played(
        history=start.history,
        decisions=list(start.decisions),
        usage=start.usage,
        extra_steps=start.extra_steps,
        dropped_steps=start.dropped_steps,
        cut_candidates=start.cut_candidates,
    )
    return await _play_on(agent, branch, played, task, seed, ())


async def _play_on(
    agent: GuidedAgent,
    branch: Environment,
    played: "_Played",
    task: Task,
    seed: int,
    notes: Sequence[str],
) -> Episode:
    try:
        while not branch.is_over:
            await _take_step(agent, branch, played, task, seed=seed, notes=notes)
    except (PolicyFailure, EnvironmentFailure) as error:
        raise EpisodeCut(played.episode(branch)) from error
    return played.episode(branch)


@dataclass(kw_only=True, slots=True)
class _Played:
    """What grows while an episode is played."""

    history: History
    decisions: list[Decision] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    extra_steps: int = 0
    dropped_steps: int = 0
    cut_candidates: int = 0

    def count(self, proposed: Proposals) -> None:
        """Count what a request for candidates has cost and what it had to leave out."""
        self.usage.add(proposed.cost)
        self.dropped_steps += proposed.dropped_steps
        self.cut_candidates += proposed.num_cut

    def count_look_ahead(self, oracle: TrueReturns) -> None:
        """Count what an oracle has cost and what it had to leave out."""
        self.usage.add(oracle.usage)
        self.extra_steps += oracle.num_steps
        self.dropped_steps += oracle.dropped_steps
        self.cut_candidates += oracle.cut_candidates

    def episode(self, branch: Environment) -> Episode:
        return Episode(
            trajectory=branch.trajectory,
            decisions=tuple(self.decisions),
            history=self.history,
            usage=self.usage,
            extra_steps=self.extra_steps,
            dropped_steps=self.dropped_steps,
            cut_candidates=self.cut_candidates,
        )


async def _take_step(
    agent: GuidedAgent,
    branch: Environment,
    played: _Played,
    task: Task,
    *,
    seed: int,
    notes: Sequence[str],
) -> None:
    """Decide and act once."""
    decision_seed = derive_seed(seed, task.task_id, len(played.decisions))
    oracle = None
    if isinstance(agent.selector, OracleSelector):
        oracle = TrueReturns(agent, branch, agent.selector.rollouts, seed=decision_seed)
    try:
        decision = await agent.decide(
            played.history,
            branch.observation,
            seed=decision_seed,
            notes=notes,
            scorer=oracle,
            on_batch=played.count,
        )
    finally:
        if oracle:
            played.count_look_ahead(oracle)
    if oracle:
        returns = oracle.returns_of(decision.proposed.proposals)
        decision = replace(decision, selection=replace(decision.selection, returns=returns))
    step = await branch.act(decision.action)
    played.decisions.append(decision)
    played.history = extend_history(played.history, step)
