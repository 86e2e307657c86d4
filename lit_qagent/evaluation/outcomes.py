"""How episodes end: each one in exactly one class, so that failures can be counted and opened."""

from collections import Counter
from collections.abc import Iterable

from lit_qagent.evaluation.episodes import (
    NO_ANSWER,
    OVERFLOW,
    WORLD_BROKE,
    FailureKind,
    PlayedEpisode,
)

SUCCESS = "success"
OUTCOMES = (
    SUCCESS,
    "partial reward",
    "wrong end",
    "cut by the step limit",
    "never acted validly",
    "no success, end not recorded",
    OVERFLOW,
    NO_ANSWER,
    WORLD_BROKE,
)
# Files of versions that did not record the kind of a failure hold the name of its class.
_KIND_BY_NAME: dict[str, FailureKind] = {
    "ContextOverflow": OVERFLOW,
    "PolicyFailure": NO_ANSWER,
    "Refused": NO_ANSWER,
}


def outcome(episode: PlayedEpisode) -> str:
    """Return the class of an episode, one of `OUTCOMES`; the last three were not played to an end.

    ``never acted validly`` goes before how the episode ended: the policy could not speak the
    world's language. ``wrong end`` means that the world ended it without any reward.
    """
    if episode.failure is not None:
        return episode.failure_kind or _kind_by_name(episode.failure)
    if episode.success:
        return SUCCESS
    if episode.num_invalid == len(episode.steps):
        return "never acted validly"
    if episode.truncated:
        return "cut by the step limit"
    if episode.reward > 0:
        return "partial reward"
    return "no success, end not recorded" if episode.truncated is None else "wrong end"


def count_outcomes(episodes: Iterable[PlayedEpisode]) -> dict[str, int]:
    """Return how many episodes ended in each class, in a fixed order; classes without any too."""
    found = Counter(outcome(episode) for episode in episodes)
    return {name: found[name] for name in OUTCOMES}


def choose_examples(episodes: Iterable[PlayedEpisode]) -> dict[tuple[str, str], PlayedEpisode]:
    """Return the first episode of each agent and outcome."""
    chosen: dict[tuple[str, str], PlayedEpisode] = {}
    for episode in episodes:
        chosen.setdefault((episode.agent, outcome(episode)), episode)
    return dict(sorted(chosen.items(), key=lambda one: (one[0][0], OUTCOMES.index(one[0][1]))))


def _kind_by_name(failure: str) -> FailureKind:
    return _KIND_BY_NAME.get(failure.partition(":")[0], WORLD_BROKE)
