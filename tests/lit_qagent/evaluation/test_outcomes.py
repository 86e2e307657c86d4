from typing import Any

import pytest

from lit_qagent.core.errors import ContextOverflow, EnvironmentFailure, PolicyFailure
from lit_qagent.evaluation.episodes import EpisodeKey, PlayedEpisode
from lit_qagent.evaluation.outcomes import OUTCOMES, choose_examples, count_outcomes, outcome
from lit_qagent.policies.openai_refusals import Refused, read_refusal
from tests.toy_players import make_episode, with_rewards

INVALID = make_episode("", "").steps[1:]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"reward": 1.0, "success": True, "truncated": False}, "success"),
        ({"reward": 0.4, "truncated": False}, "partial reward"),
        ({"reward": 0.4}, "partial reward"),
        ({"truncated": False}, "wrong end"),
        ({"truncated": True}, "cut by the step limit"),
        ({"truncated": True, "steps": INVALID * 5}, "never acted validly"),
        ({}, "no success, end not recorded"),
        ({"steps": [], "failure": "ContextOverflow: too long"}, "context overflow"),
        ({"steps": [], "failure": "PolicyFailure: no answer"}, "policy failure"),
        ({"steps": [], "failure": "Refused: the key"}, "policy failure"),
        ({"steps": [], "failure": "EnvironmentFailure: broke"}, "world failure"),
    ],
)
def test_each_end_has_its_class(changes: dict[str, Any], name: str) -> None:
    assert outcome(make_episode("q", "a", **changes)) == name
    assert name in OUTCOMES


class NewKind(PolicyFailure):
    """A kind of error that `outcome` has never heard of."""


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Refused("key", read_refusal(401, "key")), "policy failure"),
        (NewKind("who knows"), "policy failure"),
        (ContextOverflow("too long"), "context overflow"),
        (EnvironmentFailure("broke"), "world failure"),
    ],
)
def test_a_failure_is_classed_by_its_type_not_by_its_name(error: Exception, name: str) -> None:
    failed = PlayedEpisode.failed(EpisodeKey("q", "a", 0), error, seconds=1.0)

    assert outcome(failed) == name
    assert outcome(PlayedEpisode.from_dict(failed.to_dict())) == name


def test_counts_cover_all_episodes_and_all_classes() -> None:
    episodes = with_rewards("q", {"a": [0.0, 1.0], "b": [1.0, 0.5]}, truncated=False)

    counts = count_outcomes(episodes)

    assert list(counts) == list(OUTCOMES)
    assert {name: number for name, number in counts.items() if number} == {
        "success": 2,
        "partial reward": 1,
        "wrong end": 1,
    }


def test_examples_are_the_first_of_each_agent_and_end() -> None:
    episodes = with_rewards("q", {"a": [0.0, 1.0], "b": [1.0, 0.0]}, truncated=False)

    assert choose_examples(episodes) == {
        ("q", "success"): episodes[1],
        ("q", "wrong end"): episodes[0],
    }
