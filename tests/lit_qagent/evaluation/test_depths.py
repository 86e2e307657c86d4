import pytest

from lit_qagent.evaluation.depths import decisions_by_depth, regret_by_depth
from lit_qagent.evaluation.episodes import PlayedEpisode, PlayedStep
from tests.toy_players import make_episode


def step(
    chosen: int, candidates: str, scores: list[float] | None, valid: bool = True
) -> PlayedStep:
    texts = candidates.split("|")
    return PlayedStep(
        action=texts[chosen],
        observation="",
        valid=valid,
        candidates=texts,
        scores=scores,
        chosen=chosen,
    )


def episode(agent: str, task: str, *steps: PlayedStep) -> PlayedEpisode:
    return make_episode(agent, task, steps=list(steps))


def test_decisions_by_depth_by_hand() -> None:
    episodes = [
        episode("q", "a", step(1, "x|y", [0.0, 1.0]), step(0, "x|x", [2.0, 2.0])),
        episode("q", "b", step(0, "x|y|y", [3.0, 0.0, 0.0], valid=False)),
        make_episode("q", "c", steps=[], failure="PolicyFailure: x"),
    ]

    assert decisions_by_depth(episodes) == [
        # The executed actions gain a half and two over the means of their candidates.
        {"depth": 0, "decisions": 2, "invalid_rate": 0.5, "distinct": 2.0, "score_gain": 1.25},
        {"depth": 1, "decisions": 1, "invalid_rate": 0.0, "distinct": 1.0, "score_gain": 0.0},
    ]


def test_agents_without_values_gain_none() -> None:
    assert decisions_by_depth([episode("plain", "a", step(0, "x", None))])[0]["score_gain"] is None


def test_regret_is_measured_as_long_as_both_went_the_same_way() -> None:
    oracle = [
        episode("oracle", "a", step(0, "x|y", [1.0, 0.25]), step(1, "u|v", [0.0, 1.0])),
        episode("oracle", "b", step(0, "x|y", [0.5, 0.0]), step(0, "u|v", [0.5, 0.0])),
        episode("oracle", "c", step(0, "x|y", [0.5, 0.5])),
    ]
    agent = [
        # As the oracle at first, then u for v: regret 0, then 1.
        episode("q", "a", step(0, "x|y", None), step(0, "u|v", None)),
        # Another way at first, regret .5; what follows is elsewhere.
        episode("q", "b", step(1, "x|y", None), step(1, "u|v", None)),
        # An action the oracle did not weigh.
        episode("q", "c", step(0, "z", None)),
        # A task the oracle did not play.
        episode("q", "d", step(0, "x", None)),
    ]

    assert regret_by_depth(agent, oracle) == [
        {"depth": 0, "decisions": 2, "regret": pytest.approx(0.25), "best_taken": 0.5},
        {"depth": 1, "decisions": 1, "regret": pytest.approx(1.0), "best_taken": 0.0},
    ]


def test_the_way_is_the_same_if_the_actions_are_however_they_are_written() -> None:
    oracle = [
        episode("oracle", "a", step(0, "go  on|y", [1.0, 0.0]), step(0, "u|v", [1.0, 0.0])),
    ]
    agent = [episode("q", "a", step(0, "go on|y", None), step(1, "u|v", None))]

    assert [row["regret"] for row in regret_by_depth(agent, oracle)] == [0.0, 1.0]


def test_thoughts_do_not_make_a_command_another_one() -> None:
    aloud = "Thought: {}.\nAction: go[{}]"
    first, again, other = aloud.format("a", 1), aloud.format("b", 1), aloud.format("a", 2)
    oracle = [
        # The oracle's look-ahead went better behind the first of two messages of one command.
        episode(
            "oracle", "a", step(0, f"{first}|{again}|{other}", [1.0, 0.5, 0.0]), step(0, "u", [1.0])
        )
    ]
    agent = [episode("q", "a", step(0, f"{again}|{first}", None), step(0, "u", None))]

    assert [row["regret"] for row in regret_by_depth(agent, oracle)] == [0.0, 0.0]
    assert decisions_by_depth(oracle)[0]["distinct"] == 2.0


def test_the_oracle_has_no_regret() -> None:
    oracle = [episode("oracle", "a", step(0, "x|y", [1.0, 0.25]))]

    assert regret_by_depth(oracle, oracle)[0]["regret"] == 0.0
