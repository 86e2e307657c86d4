"""How often an agent may try a task, and what it learns from trial to trial."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from lit_qagent.agents.episode import Episode, EpisodeCut, play_episode
from lit_qagent.agents.guided import GuidedAgent, propose_actions
from lit_qagent.core.errors import ConfigError, PolicyFailure
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
        """Play a task; see `play_episode`."""


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
            with _costs_of(played, Usage()):
                played.append(await play_episode(agent, environment, task, seed=trial_seed))
        best = max(played, key=lambda episode: episode.trajectory.reward)
        return _with_all_costs(best, played, Usage())


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
        usage = Usage()
        while True:
            trial_seed = _trial_seed(seed, len(played))
            shown = notes[-self.num_notes :]
            with _costs_of(played, usage):
                played.append(
                    await play_episode(agent, environment, task, seed=trial_seed, notes=shown)
                )
            if played[-1].trajectory.success or len(played) == self.num_trials:
                return _with_all_costs(played[-1], played, usage)
            try:
                note = await self._reflect(agent, played[-1].history, usage, seed=trial_seed)
            except PolicyFailure as error:
                raise EpisodeCut(_with_all_costs(played[-1], played, usage)) from error
            notes += [note] if note else []

    async def _reflect(
        self, agent: GuidedAgent, history: History, usage: Usage, *, seed: int
    ) -> str:
        """Return what the policy says about an episode, on one line; constraints do not apply.

        Empty if the context is too short for even the last step, and the question behind it.
        """
        *turns, last = history.turns
        # The question joins the last observation: chat templates want the roles to alternate.
        asked = Message(role=last.role, content=f"{last.content}\n\n{_REFLECT}")
        sampling = Sampling(
            temperature=agent.sampling.temperature,
            top_p=agent.sampling.top_p,
            max_tokens=self.note_tokens,
        )
        written = await propose_actions(
            agent.policy,
            History(head=history.head, turns=(*turns, asked)),
            1,
            sampling,
            constraint=None,
            seed=derive_seed(seed, "reflect"),
        )
        usage.add(written.cost)
        if written.dropped_steps == history.num_steps:
            return ""
        return " ".join(written.proposals[0].text.split())


def _trial_seed(seed: int, number: int) -> int:
    """Return a trial's seed; the first one draws as an agent with a single trial does."""
    return derive_seed(seed, "trial", number) if number else seed


@contextmanager
def _costs_of(earlier: list[Episode], usage: Usage) -> Iterator[None]:
    """Let an episode that is cut bear the cost of the trials before it, too."""
    try:
        yield
    except EpisodeCut as cut:
        whole = _with_all_costs(cut.episode, [*earlier, cut.episode], usage)
        raise EpisodeCut(whole) from cut.__cause__


def _with_all_costs(chosen: Episode, played: list[Episode], usage: Usage) -> Episode:
    """Return an episode that bears the cost of all trials, and of a usage besides."""
    for episode in played:
        usage.add(episode.usage)
    steps = sum(len(episode.trajectory.steps) + episode.extra_steps for episode in played)
    return Episode(
        trajectory=chosen.trajectory,
        decisions=chosen.decisions,
        history=chosen.history,
        usage=usage,
        extra_steps=steps - len(chosen.trajectory.steps),
        num_trials=len(played),
    )


def _at_least_two(num_trials: int, name: str) -> int:
    if num_trials < 2:
        raise ConfigError(
            f"{name}.num_trials must be >= 2, got {num_trials}; leave trials out for one trial"
        )
    return num_trials
