"""How often an agent may try a task, and what it learns from trial to trial."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from lit_qagent.agents.episode import Episode, EpisodeCut, play_episode
from lit_qagent.agents.guided import GuidedAgent, Proposals, propose_actions
from lit_qagent.core.errors import ConfigError, ContextOverflow, EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import History, Message, Sampling, Task, Usage
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.base import Environment

_REFLECT = (
    "This attempt is over and it did not solve the task. Look back at what you did. In one or two "
    "sentences, say what went wrong and what you will do differently in your next attempt at the "
    "same task. Write only those sentences."
)


class Trials(ABC):
    """Plays a task as often as it allows; the episode that counts holds the cost of all of them.

    Attributes:
        uses: What it knows that a single trial does not; every report says it.
        needs_scorer: True if it needs a Q-model, whatever the selector needs.
    """

    uses: str = ""
    needs_scorer: bool = False

    @abstractmethod
    async def play(
        self, agent: GuidedAgent, environment: Environment, task: Task, *, seed: int
    ) -> Episode:
        """Play a task; see `play_episode` for what is raised."""


class SingleTrial(Trials):
    """One episode, as in earnest."""

    async def play(
        self, agent: GuidedAgent, environment: Environment, task: Task, *, seed: int
    ) -> Episode:
        """Play once."""
        return await play_episode(agent, environment, task, seed=seed)


class BestOfTrials(Trials):
    """Counts the best of several whole episodes by their true reward: an upper bound.

    Ends at the first full success, as nothing can be better.

    Args:
        num_trials: Most episodes.

    Raises:
        ConfigError: ``num_trials`` is below 2.
    """

    uses = "the true reward"

    def __init__(self, num_trials: int = 5) -> None:
        self.num_trials = _at_least_two(num_trials, "BestOfTrials")

    async def play(
        self, agent: GuidedAgent, environment: Environment, task: Task, *, seed: int
    ) -> Episode:
        """Play until a success, or as often as allowed; ties go to the earlier episode."""
        played: list[Episode] = []
        while len(played) < self.num_trials and not (played and played[-1].trajectory.success):
            trial_seed = _trial_seed(seed, len(played))
            with _costs_of(played):
                played.append(await play_episode(agent, environment, task, seed=trial_seed))
        best = max(played, key=lambda episode: episode.trajectory.reward)
        return _with_all_costs(best, played)


class Reflexion(Trials):
    """Tries again after a failure, with notes that the agent's policy writes about it.

    The last episode counts. Unlike a single trial it is told whether the trials before it solved
    the task.

    Args:
        num_trials: Most episodes.
        num_notes: Newest notes that the prompt shows.
        note_tokens: Longest note, in tokens.

    Raises:
        ConfigError: ``num_trials`` is below 2, or another value below 1.
    """

    uses = "the success of earlier trials"

    def __init__(self, num_trials: int = 3, num_notes: int = 3, note_tokens: int = 96) -> None:
        if num_notes < 1 or note_tokens < 1:
            raise ConfigError(
                f"Reflexion: num_notes and note_tokens must be >= 1, got {num_notes} and "
                f"{note_tokens}"
            )
        self.num_trials = _at_least_two(num_trials, "Reflexion")
        self.num_notes = num_notes
        self.note_tokens = note_tokens

    async def play(
        self, agent: GuidedAgent, environment: Environment, task: Task, *, seed: int
    ) -> Episode:
        """Play until a success, or as often as allowed."""
        played: list[Episode] = []
        notes: list[str] = []
        while True:
            trial_seed = _trial_seed(seed, len(played))
            shown = notes[-self.num_notes :]
            with _costs_of(played):
                played.append(
                    await play_episode(agent, environment, task, seed=trial_seed, notes=shown)
                )
            if played[-1].trajectory.success or len(played) == self.num_trials:
                return _with_all_costs(played[-1], played)
            try:
                written = await self._reflect(agent, played[-1].history, seed=trial_seed)
            except ContextOverflow:
                continue  # no room for the question, so there is nothing to note
            except PolicyFailure as error:
                raise EpisodeCut(_with_all_costs(played[-1], played)) from error
            if note := " ".join(written.proposals[0].text.split()):
                notes.append(note)
            played[-1] = _with_cost_of(played[-1], written)

    async def _reflect(self, agent: GuidedAgent, history: History, *, seed: int) -> Proposals:
        """Return what the policy says about an episode; constraints do not apply.

        Raises:
            ContextOverflow: The context is too short for even the last step, and the question
                behind it.
            PolicyFailure: The policy gave no answer.
        """
        *turns, last = history.turns
        # The question joins the last observation: chat templates want the roles to alternate.
        asked = Message(role=last.role, content=f"{last.content}\n\n{_REFLECT}")
        sampling = Sampling(
            temperature=agent.sampling.temperature,
            top_p=agent.sampling.top_p,
            max_tokens=self.note_tokens,
        )
        return await propose_actions(
            agent.policy,
            History(head=history.head, turns=(*turns, asked)),
            1,
            sampling,
            constraint=None,
            seed=derive_seed(seed, "reflect"),
            min_steps=1,
        )


def _trial_seed(seed: int, number: int) -> int:
    """Return a trial's seed; the first one draws as an agent with a single trial does."""
    return derive_seed(seed, "trial", number) if number else seed


@contextmanager
def _costs_of(earlier: list[Episode]) -> Iterator[None]:
    """Let an episode that is cut bear the cost of the trials before it, too.

    Raises:
        EpisodeCut: An episode was cut, or could not start and others were played before; the last
            of them is then listed.
    """
    try:
        yield
    except EpisodeCut as cut:
        whole = _with_all_costs(cut.episode, [*earlier, cut.episode])
        raise EpisodeCut(whole) from cut.__cause__
    except (PolicyFailure, EnvironmentFailure) as error:
        if not earlier:
            raise
        raise EpisodeCut(_with_all_costs(earlier[-1], earlier)) from error


def _with_cost_of(episode: Episode, note: Proposals) -> Episode:
    """Return an episode that bears the cost of a note about it, too; a note is no candidate."""
    episode.usage.add(note.cost)
    return replace(episode, dropped_steps=episode.dropped_steps + note.dropped_steps)


def _with_all_costs(chosen: Episode, played: list[Episode]) -> Episode:
    """Return an episode that bears the cost of all trials, and what they had to leave out."""
    usage = Usage()
    for episode in played:
        usage.add(episode.usage)
    steps = sum(len(episode.trajectory.steps) + episode.extra_steps for episode in played)
    return replace(
        chosen,
        usage=usage,
        extra_steps=steps - len(chosen.trajectory.steps),
        num_trials=len(played),
        dropped_steps=sum(episode.dropped_steps for episode in played),
        cut_candidates=sum(episode.cut_candidates for episode in played),
    )


def _at_least_two(num_trials: int, name: str) -> int:
    if num_trials < 2:
        raise ConfigError(
            f"{name}.num_trials must be >= 2, got {num_trials}; leave trials out for one trial"
        )
    return num_trials
