"""Played episodes on disk: one JSON line each, appended as soon as the episode has ended."""

import fcntl
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Self

from lit_qagent.agents.episode import Episode
from lit_qagent.core.errors import ContextOverflow, PolicyFailure, StoreError
from lit_qagent.core.records import RequestCost, Usage
from lit_qagent.core.text import whole_letters

TRAJECTORIES_GLOB = "trajectories*.jsonl"

FailureKind = Literal["context overflow", "policy failure", "world failure"]
OVERFLOW: Final = "context overflow"
NO_ANSWER: Final = "policy failure"
WORLD_BROKE: Final = "world failure"


class EpisodeKey(NamedTuple):
    """What tells one episode of an evaluation from the others."""

    agent: str
    task_id: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class PlayedStep:
    """One decision and what the world said to it.

    Attributes:
        action: The executed action.
        observation: The world's text after it.
        valid: False if the world could not carry it out.
        candidates: Every proposed action, in the order of the policy.
        scores: One value per candidate if the selector computes values, or the search before acting
            knows of all of them; else None.
        chosen: Position of the executed action among the candidates.
        returns: An oracle's single rollouts: per candidate the true rewards whose mean its score
            is. None of any other agent, and in files of versions that did not keep them.
    """

    action: str
    observation: str
    valid: bool
    candidates: list[str]
    scores: list[float] | None
    chosen: int
    returns: list[list[float]] | None = None


@dataclass(frozen=True, kw_only=True)
class PlayedEpisode:
    """One episode of an evaluation: a line of the trajectories file.

    Attributes:
        agent: Name of the agent in the configuration.
        task_id: The task played.
        seed: The seed of the episode.
        reward: Outcome reward in [0, 1].
        success: True if the full outcome reward was earned.
        metrics: The world's scores at the end, such as ``{"em": 1.0}``; empty if it gave none.
        first_observation: What the agent read first.
        steps: Decisions in order; those until then after a failure.
        requests: Policy requests.
        prompt_tokens: Tokens of all prompts, one prompt per request.
        generated_tokens: Tokens of all candidates.
        seconds: Wall time from reset to the end, beside other episodes in flight.
        dropped_steps: Steps left out of prompts for lack of context, in all requests; in files of
            earlier versions in those of the listed decisions.
        cut_candidates: Candidates that the token limit cut, as ``dropped_steps``.
        failure: Why the episode could not be played to its end, else None.
        failure_kind: What kind of error that was; None in files of versions that did not record it.
        truncated: True if the step limit ended it, False if the world did; None in files of
            versions that did not record it.
        extra_steps: Environment steps besides those listed: other trials, look-ahead of an
            upper bound.
        num_trials: Trials played, the one listed included.
    """

    agent: str
    task_id: str
    seed: int
    reward: float = 0.0
    success: bool = False
    metrics: Mapping[str, float]
    first_observation: str = ""
    steps: list[PlayedStep]
    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float
    dropped_steps: int = 0
    cut_candidates: int = 0
    failure: str | None = None
    failure_kind: FailureKind | None = None
    truncated: bool | None = None
    extra_steps: int = 0
    num_trials: int = 1

    @property
    def key(self) -> EpisodeKey:
        """What tells this episode from the others."""
        return EpisodeKey(self.agent, self.task_id, self.seed)

    @property
    def num_invalid(self) -> int:
        """Number of actions the world could not carry out."""
        return sum(not step.valid for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` gave.

        Raises:
            TypeError: A field is missing, unknown, or no container of the right kind.
        """
        steps = [PlayedStep(**step) for step in row.get("steps", ())]
        return cls(**{**row, "steps": steps})

    @classmethod
    def finished(cls, key: EpisodeKey, episode: Episode, *, seconds: float) -> Self:
        """Describe an episode that was played to its end."""
        trajectory = episode.trajectory
        return cls(
            **key._asdict(),
            reward=trajectory.reward,
            success=trajectory.success,
            metrics=dict(trajectory.steps[-1].metrics),
            **_played_part(episode),
            seconds=seconds,
            truncated=trajectory.steps[-1].truncated,
        )

    @classmethod
    def failed(
        cls,
        key: EpisodeKey,
        error: BaseException,
        *,
        seconds: float,
        episode: Episode | None = None,
    ) -> Self:
        """Describe an episode that an error ended: it has no reward and is counted apart.

        Args:
            key: Which episode.
            error: What ended it.
            seconds: Wall time until then.
            episode: What was played until then, if anything.
        """
        return cls(
            **key._asdict(),
            metrics={},
            **(_played_part(episode) if episode else {"steps": []}),
            seconds=seconds,
            failure=f"{type(error).__name__}: {error}",
            failure_kind=kind_of_failure(error),
        )


def kind_of_failure(error: BaseException) -> FailureKind:
    """Return the kind of an error by its type, so that its subclasses count as it does."""
    if isinstance(error, ContextOverflow):
        return OVERFLOW
    return NO_ANSWER if isinstance(error, PolicyFailure) else WORLD_BROKE


class LogContents(NamedTuple):
    """What trajectories files hold.

    Attributes:
        episodes: One record of every episode: the finished one if there is any, else the last.
        torn_lines: Last lines that a killed process left unfinished; they count as not played.
        usage: What all records have cost, also failed ones that a later try stands for.
    """

    episodes: dict[EpisodeKey, PlayedEpisode]
    torn_lines: int
    usage: Usage


def read_episodes(folder: Path) -> LogContents:
    """Read every trajectories file in a folder.

    A failed episode may be played again; the finished record then stands for it, in whatever file
    it is: the next run may deal the tasks out to another number of processes.

    Raises:
        StoreError: A line is corrupt, or an episode was finished twice.
    """
    episodes: dict[EpisodeKey, PlayedEpisode] = {}
    usage = Usage()
    torn = 0
    for path in sorted(folder.glob(TRAJECTORIES_GLOB)):
        *lines, rest = path.read_bytes().split(b"\n")
        torn += bool(rest)
        for episode in _parse_lines(path, lines):
            usage.add(
                RequestCost(
                    requests=episode.requests,
                    prompt_tokens=episode.prompt_tokens,
                    generated_tokens=episode.generated_tokens,
                )
            )
            _merge(episodes, episode, path)
    return LogContents(episodes, torn, usage)


class EpisodeLog:
    """The trajectories file that one process appends to; use it as a context manager.

    Args:
        path: The file; made if it is missing. A torn last line is cut off on opening.

    Raises:
        StoreError: Another process is writing the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StoreError(
                f"Results file {str(path)!r} is being written by another process; "
                "wait for it or give another folder"
            ) from None
        self.cut_bytes = cut_torn_line(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, episode: PlayedEpisode) -> None:
        """Write one line and hand it to the operating system, so that a killed process keeps it."""
        line = json.dumps(episode.to_dict(), ensure_ascii=False)
        # A world or an error may say half a letter, which no file can hold.
        self._file.write(whole_letters(line).encode() + b"\n")
        self._file.flush()


def cut_torn_line(file: BinaryIO) -> int:
    """Cut what a kill left of a last line off an open file; return its length."""
    file.seek(0)
    data = file.read()
    keep = data.rfind(b"\n") + 1
    file.truncate(keep)
    return len(data) - keep


def _played_part(episode: Episode) -> dict[str, Any]:
    """Return the fields that an episode has whether or not it was played to its end."""
    return {
        "first_observation": episode.trajectory.first_observation.text,
        "steps": _played_steps(episode),
        "requests": episode.usage.requests,
        "prompt_tokens": episode.usage.prompt_tokens,
        "generated_tokens": episode.usage.generated_tokens,
        "dropped_steps": episode.dropped_steps,
        "cut_candidates": episode.cut_candidates,
        "extra_steps": episode.extra_steps,
        "num_trials": episode.num_trials,
    }


def _played_steps(episode: Episode) -> list[PlayedStep]:
    return [
        PlayedStep(
            action=step.action,
            observation=step.observation.text,
            valid=step.valid,
            candidates=[proposal.text for proposal in decision.proposed.proposals],
            scores=list(decision.selection.scores) if decision.selection.scores else None,
            chosen=decision.selection.index,
            returns=_as_lists(decision.selection.returns),
        )
        for step, decision in zip(episode.trajectory.steps, episode.decisions, strict=True)
    ]


def _as_lists(returns: Sequence[Sequence[float]] | None) -> list[list[float]] | None:
    return None if returns is None else [list(one) for one in returns]


def _parse_lines(path: Path, lines: Iterable[bytes]) -> Iterable[PlayedEpisode]:
    for number, line in enumerate(lines, start=1):
        try:
            yield PlayedEpisode.from_dict(json.loads(line))
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(
                f"Results file {str(path)!r}, line {number} is no played episode ({error}); "
                "delete that line to play its episode again"
            ) from error


def _merge(episodes: dict[EpisodeKey, PlayedEpisode], episode: PlayedEpisode, path: Path) -> None:
    earlier = episodes.get(episode.key)
    if earlier is None or earlier.failure is not None:
        episodes[episode.key] = episode
    elif episode.failure is None:
        raise StoreError(
            f"Results file {str(path)!r} holds an episode that was finished before: "
            f"{episode.key}; delete one of its lines"
        )
