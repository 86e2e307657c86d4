import math

import numpy as np
import pytest
from scipy.stats import norm, ttest_rel, wilcoxon

from lit_qagent.evaluation.significance import (
    holm,
    minimum_detectable_difference,
    permutation_p_values,
)
from lit_qagent.evaluation.statistics import compare
from tests.toy_players import with_rewards


def p_value(*differences: float) -> float | None:
    return permutation_p_values({"reward": np.array(differences)})["reward"]


def test_p_values_that_can_be_counted() -> None:
    # Eight ways to sign (1, 1, 1); only +++ and --- are as far from zero: 2/8.
    assert p_value(1, 1, 1) == pytest.approx(2 / 8)
    # (3, -1): means 1, 2, -2, -1 over the four ways; all are at least 1 away from zero.
    assert p_value(3, -1) == pytest.approx(1.0)
    # (3, 2, -1) has sum 4; of 6, 4, 2, 0 and their negatives, 6, 4, -4 and -6 are as far: 4/8.
    assert p_value(3, 2, -1) == pytest.approx(4 / 8)
    # No difference at all: every way gives zero.
    assert p_value(0, 0, 0, 0) == pytest.approx(1.0)


def test_rows_are_tested_each_on_its_own() -> None:
    table = {"reward": np.array([1.0, 1, 1]), "success": np.array([3.0, 2, -1])}

    assert permutation_p_values(table) == pytest.approx({"reward": 0.25, "success": 0.5})


def test_many_tasks_are_drawn_and_near_the_tests_of_the_textbook() -> None:
    rng = np.random.default_rng(4)
    ours, theirs = rng.normal(0.12, 0.5, 120), rng.normal(0, 0.5, 120)
    found = p_value(*(ours - theirs))

    assert found is not None
    # 10,000 draws: standard error below 0.005; the t-test assumes what holds here.
    assert found == pytest.approx(ttest_rel(ours, theirs).pvalue, abs=0.02)
    assert 0.1 < found / wilcoxon(ours - theirs).pvalue < 10


def test_alike_agents_are_called_different_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(8)
    table = {f"study{i}": rng.normal(0, 1, size=12) for i in range(400)}

    p_values = permutation_p_values(table).values()

    share = np.mean([p is not None and p < 0.05 for p in p_values])
    assert share == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 400))


def test_one_task_has_no_p_value_and_no_detectable_difference() -> None:
    assert p_value(1.0) is None
    assert permutation_p_values({}) == {}
    assert minimum_detectable_difference([1.0]) is None


@pytest.mark.parametrize("differences", [[0.0] * 10, [0.25] * 10, [0.1 + 0.2, 0.3, 0.3]])
def test_tasks_that_do_not_vary_say_nothing_of_what_could_be_shown(
    differences: list[float],
) -> None:
    assert minimum_detectable_difference(differences) is None


def test_holm_by_hand() -> None:
    # Sorted .01, .03, .04: 3 * .01 = .03, 2 * .03 = .06, 1 * .04 raised to .06.
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx(
        {"a": 0.06, "b": 0.03, "c": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.02, "none": None}) == {"a": 0.02, "none": None}


def test_the_detectable_difference_is_found_with_the_power_it_promises() -> None:
    differences = [0.0, 1.0, 0.0, 1.0]  # standard deviation sqrt(1/3)
    expected = (norm.ppf(0.975) + norm.ppf(0.8)) * math.sqrt(1 / 3) / 2

    assert minimum_detectable_difference(differences) == pytest.approx(expected)
    strict = (norm.ppf(1 - 0.05 / 5 / 2) + norm.ppf(0.8)) * math.sqrt(1 / 3) / 2
    assert minimum_detectable_difference(differences, num_tests=5) == pytest.approx(strict)
    # Power of the normal test at that difference, standard error 1.
    assert norm.sf(1.959964 - (norm.ppf(0.975) + norm.ppf(0.8))) == pytest.approx(0.8, abs=1e-4)


def test_a_comparison_holds_both() -> None:
    ours = with_rewards("q", {"a": [1.0], "b": [1.0], "c": [1.0]})
    theirs = with_rewards("plain", {"a": [0.5], "b": [0.5], "c": [0.5]})

    difference = compare(ours, theirs, [])

    assert difference.p_values["reward"] == pytest.approx(0.25)
    assert difference.detectable["reward"] is None
