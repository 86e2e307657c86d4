import random
import statistics as reference
from typing import Any

import numpy as np
import pytest

from lit_qagent.evaluation.differences import difference_rows
from lit_qagent.evaluation.statistics import (
    Difference,
    Estimate,
    bootstrap_means,
    compare,
    failures_as_zero,
    metric_names,
    quantities,
    summarize,
    verdict,
)
from tests.toy_players import make_episode, with_rewards


def naive_interval(values: list[float], resamples: int = 4000) -> tuple[float, float]:
    """The textbook loop: draw tasks with replacement, take the mean, cut 2.5 % off each end."""
    rng = random.Random(7)
    means = sorted(reference.fmean(rng.choices(values, k=len(values))) for _ in range(resamples))
    return means[round(0.025 * resamples)], means[round(0.975 * resamples)]


def test_quantities_of_one_episode() -> None:
    episode = make_episode(
        "plain", "a", reward=0.5, metrics={"f1": 0.4}, prompt_tokens=30, generated_tokens=12
    )

    assert quantities(episode, ["em", "f1"]) == {
        "reward": 0.5,
        "success": 0.0,
        "em": 0.0,  # no answer was given
        "f1": 0.4,
        "steps": 2.0,
        "invalid_rate": 0.5,
        "tokens": 42.0,
        "generated_tokens": 12.0,
    }


def test_metric_names_are_those_of_any_episode() -> None:
    episodes = [
        make_episode("a", "1", metrics={"f1": 1}),
        make_episode("a", "2", metrics={"em": 1}),
    ]

    assert metric_names(episodes) == ["em", "f1"]


def test_seeds_are_averaged_within_a_task_first() -> None:
    # Task a: mean(1, 0, 1, 0) = 0.5; task b: 1. The mean over tasks is 0.75, over episodes 0.6.
    summary = summarize(with_rewards("plain", {"a": [1, 0, 1, 0], "b": [1]}), [])

    assert summary.estimates["reward"].mean == pytest.approx(0.75)
    assert summary.estimates["success"].mean == pytest.approx(0.75)
    assert (summary.tasks, summary.episodes, summary.failures) == (2, 5, 0)


def test_two_tasks_give_the_interval_that_can_be_counted() -> None:
    # Resamples of (0, 1) have mean 0, 1/2, 1 with chances 1/4, 1/2, 1/4: the quantiles are 0 and 1.
    estimate = bootstrap_means({"reward": np.array([0.0, 1.0])})["reward"]

    assert estimate == Estimate(mean=0.5, low=0.0, high=1.0)


def test_failed_episodes_are_counted_and_in_no_mean() -> None:
    failed = make_episode("plain", "b", steps=[], failure="PolicyFailure: x", dropped_steps=0)
    finished = with_rewards("plain", {"a": [1.0]}, dropped_steps=2, cut_candidates=3)

    summary = summarize([*finished, failed], [])

    assert (summary.tasks, summary.episodes, summary.failures) == (1, 1, 1)
    assert (summary.dropped_steps, summary.cut_candidates) == (2, 3)
    assert summary.estimates["reward"] == Estimate(mean=1.0, low=None, high=None)


def test_failed_episodes_count_as_nothing_earned_where_that_is_asked_for() -> None:
    failed = make_episode("plain", "b", 1, steps=[], failure="PolicyFailure: x")
    finished = with_rewards("plain", {"a": [1.0, 1.0], "b": [1.0]}, metrics={"em": 0.5})

    estimates = failures_as_zero([*finished, failed], ["em"])

    # Task a 1, task b mean(1, 0) = .5.
    assert estimates["reward"] == Estimate(mean=0.75, low=0.5, high=1.0)
    assert (estimates["success"].mean, estimates["em"].mean) == (0.75, 0.375)
    assert list(estimates) == ["reward", "success", "em"]
    assert failures_as_zero([failed], [])["reward"] == Estimate(mean=0.0, low=None, high=None)
    assert failures_as_zero([], []) == {}


def test_an_agent_without_a_finished_episode_has_no_estimates() -> None:
    failed = make_episode("plain", "b", steps=[], failure="PolicyFailure: x")

    assert summarize([failed], ["em"]).estimates == {}
    assert compare([failed], [failed], []).tasks == 0


def test_a_constant_difference_has_no_width_however_tasks_vary() -> None:
    rewards = {f"t{i}": [i / 20] for i in range(10)}
    better = {task: [some[0] + 0.25] for task, some in rewards.items()}

    difference = compare(with_rewards("q", better), with_rewards("plain", rewards), [])

    estimate = difference.estimates["reward"]
    assert estimate.mean == pytest.approx(0.25)
    assert estimate.low == pytest.approx(0.25)
    assert estimate.high == pytest.approx(0.25)


def test_episodes_that_one_agent_lacks_are_excluded_pairwise_and_counted() -> None:
    treatment = with_rewards("q", {"a": [1.0, 1.0], "b": [1.0]})
    control = with_rewards("plain", {"a": [0.0], "c": [1.0, 1.0]})

    difference = compare(treatment, control, [])

    # Shared: task a, seed 0. Left out: a/1 and b/0 of one, c/0 and c/1 of the other.
    assert (difference.tasks, difference.excluded_episodes) == (1, 4)
    assert difference.estimates["reward"] == Estimate(mean=1.0, low=None, high=None)


def test_the_paired_bootstrap_equals_the_naive_loop() -> None:
    rng = random.Random(3)
    ours = {f"t{i}": [rng.random()] for i in range(25)}
    theirs = {task: [value[0] * rng.random()] for task, value in ours.items()}
    low, high = naive_interval([ours[task][0] - theirs[task][0] for task in ours])

    estimate = compare(with_rewards("q", ours), with_rewards("plain", theirs), []).estimates[
        "reward"
    ]

    assert estimate.low == pytest.approx(low, abs=0.01)
    assert estimate.high == pytest.approx(high, abs=0.01)


def test_the_same_seed_gives_the_same_interval() -> None:
    table = {"reward": np.random.default_rng(0).random(12)}

    assert bootstrap_means(table, seed=1) == bootstrap_means(table, seed=1)
    assert bootstrap_means(table, seed=1) != bootstrap_means(table, seed=2)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # 150 studies of 30 tasks each whose true mean is 0.3: 95 % of the intervals should hold it
    # (the percentile bootstrap gives a little less), within 3 standard errors of 1.8 %.
    rng = np.random.default_rng(5)
    table = {f"study{i}": rng.beta(0.6, 1.4, size=30) for i in range(150)}

    estimates = bootstrap_means(table).values()

    covered = sum(e.low <= 0.3 <= e.high for e in estimates if e.low is not None and e.high)
    assert 0.88 <= covered / len(table) <= 0.99


@pytest.mark.parametrize(
    ("low", "high", "p_value", "words"),
    [
        (0.01, 0.2, 0.05, "better"),
        (-0.2, -0.01, 0.001, "worse"),
        (0.01, 0.2, 0.051, "no difference shown"),
        (-0.2, -0.01, 0.5, "no difference shown"),
        (0.0, 0.2, 0.01, "no difference shown"),
        (-0.1, 0.1, 0.01, "no difference shown"),
        (None, None, None, "no difference shown"),
    ],
)
def test_verdict(low: float | None, high: float | None, p_value: float | None, words: str) -> None:
    assert verdict(Estimate(mean=0.1, low=low, high=high), p_value) == words


def row_of(difference: Difference) -> dict[str, Any]:
    return difference_rows({"alone": difference})["alone"]


def test_two_tasks_never_show_a_difference() -> None:
    ours, theirs = {"a": [0.3], "b": [0.5]}, {"a": [0.0], "b": [0.0]}

    row = row_of(compare(with_rewards("q", ours), with_rewards("plain", theirs), []))

    # The bootstrap of two tasks never leaves their two values; one way of four to sign them does.
    assert (row["low"], row["high"], row["verdict"]) == (0.3, 0.5, "no difference shown")


def test_six_tasks_of_one_sign_are_the_fewest_that_show_a_difference() -> None:
    def found(num_tasks: int) -> str:
        ours = {f"t{i}": [0.3 + i / 100] for i in range(num_tasks)}
        theirs = {task: [0.0] for task in ours}
        some = compare(with_rewards("q", ours), with_rewards("plain", theirs), [])
        return str(row_of(some)["verdict"])

    assert (found(5), found(6)) == ("no difference shown", "better")  # p 2/32 and 2/64


def test_fewer_tokens_are_less_and_neither_better_nor_worse() -> None:
    rewards = {f"t{i}": [0.5] for i in range(6)}
    ours = with_rewards("q", rewards, prompt_tokens=10)
    theirs = with_rewards("plain", rewards, prompt_tokens=30)

    others = row_of(compare(ours, theirs, []))["others"]

    assert others["tokens"]["verdict"] == "less"
    assert row_of(compare(theirs, ours, []))["others"]["tokens"]["verdict"] == "more"


def test_intervals_do_not_depend_on_the_order_in_which_episodes_ended() -> None:
    rng = np.random.default_rng(5)
    rewards = {f"task-{i}": [float(x) for x in rng.random(2)] for i in range(12)}
    played = with_rewards("q", rewards)

    found = [summarize(some, []).estimates["reward"] for some in (played, played[::-1])]

    assert found[0].mean == pytest.approx(found[1].mean)
    assert (found[0].low, found[0].high) == pytest.approx((found[1].low, found[1].high), abs=1e-12)
