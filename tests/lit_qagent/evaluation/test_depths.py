import itertools
from dataclasses import replace
from statistics import fmean

import pytest

from lit_qagent.evaluation.depths import decisions_by_depth, is_cross_fitted, regret_by_depth
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


def rolled_out(chosen: int, candidates: str, *returns: list[float]) -> PlayedStep:
    """Return a step of an oracle that keeps its rollouts."""
    scores = [fmean(some) for some in returns]
    return replace(step(chosen, candidates, scores), returns=[list(some) for some in returns])


def test_one_half_of_the_rollouts_picks_the_best_and_the_other_values_it() -> None:
    oracle = [
        episode("oracle", "a", rolled_out(0, "x|y|z", [1.0, 0.0], [0.0, 0.75], [0.5, 0.0])),
        # Three rollouts: the first and the third are one half.
        episode("oracle", "b", rolled_out(0, "x|y", [1.0, 0.5, 0.0], [0.0, 0.75, 0.0])),
    ]

    def regret(*episodes: PlayedEpisode) -> object:
        [row] = regret_by_depth(episodes, oracle)
        return row["regret"], row["best_taken"]

    # By the first rollout x is best, by the second worth 0; by the second y, by the first worth 0.
    # Taken is z: 0 - 0 and 0 - .5. All rollouts would say .5 - .25.
    assert regret(episode("q", "a", step(2, "x|y|z", None))) == (-0.25, 0.0)
    # Taken is x, in turn 0 - 0 and 0 - 1; it is best by all rollouts.
    assert regret(episode("q", "a", step(0, "x|y|z", None))) == (-0.5, 1.0)
    # Task b, taken y: x is best by the first half (.5 to 0), worth .5 to y's .75 by the other; y by
    # the other, so without regret.
    assert regret(episode("q", "b", step(1, "x|y", None))) == (-0.125, 0.0)


def test_noise_alone_makes_no_regret_if_the_rollouts_are_kept() -> None:
    """Two actions worth a half, each with two rollouts of 0 or 1: all 16 outcomes are as likely."""
    kept, scores_only, one_rollout = [], [], []
    for number, drawn in enumerate(itertools.product([0.0, 1.0], repeat=4)):
        one = rolled_out(0, "x|y", [*drawn[:2]], [*drawn[2:]])
        kept.append(episode("oracle", str(number), one))
        scores_only.append(episode("oracle", str(number), replace(one, returns=None)))
        single = rolled_out(0, "x|y", [drawn[0]], [drawn[2]])
        one_rollout.append(episode("oracle", str(number), single))
    taken = [episode("q", str(number), step(0, "x|y", None)) for number in range(16)]

    assert [regret_by_depth(taken, some)[0]["regret"] for some in (kept, scores_only)] == [
        0.0,
        # The higher of two means is 0, .5 or 1 in 1, 8 and 7 of the 16: 11/16 less a half.
        0.1875,
    ]
    # The higher of two single rollouts is 1 in three of four.
    assert regret_by_depth(taken, one_rollout)[0]["regret"] == 0.25


def test_commands_that_one_half_finds_equally_good_are_worth_their_mean_by_the_other() -> None:
    oracle = [
        episode("oracle", "a", rolled_out(0, "x|y|z", [1.0, 0.5], [1.0, 0.25], [0.0, 0.0])),
    ]

    [row] = regret_by_depth([episode("q", "a", step(2, "x|y|z", None))], oracle)

    # By the first half x and y are best, worth .375 by the second; then x, worth 1 by the first.
    assert row["regret"] == (0.375 + 1.0) / 2


def test_messages_of_one_command_share_the_mean_of_their_rollouts() -> None:
    aloud = "Thought: {}.\nAction: go[{}]"
    first, again, other = aloud.format("a", 1), aloud.format("b", 1), aloud.format("a", 2)
    oracle = [
        episode("oracle", "a", step(0, f"{first}|{again}|{other}", [1.0, 0.0, 0.75])),
    ]
    taken = [episode("q", "a", step(0, first, None))]

    # Not the lucky one of its two messages: .75 - .5.
    assert regret_by_depth(taken, oracle)[0]["regret"] == 0.25


def test_rollouts_are_halved_only_if_every_decision_of_the_oracle_keeps_two() -> None:
    two, one = rolled_out(0, "x", [1.0, 0.0]), rolled_out(0, "x", [1.0])
    unkept = replace(two, returns=None)
    failed = make_episode("oracle", "b", steps=[unkept], failure="PolicyFailure: x")

    assert is_cross_fitted([episode("oracle", "a", two, two), failed])
    assert not is_cross_fitted([episode("oracle", "a", two, one)])
    assert not is_cross_fitted([episode("oracle", "a", two), episode("oracle", "b", unkept)])
    assert not is_cross_fitted([failed])
