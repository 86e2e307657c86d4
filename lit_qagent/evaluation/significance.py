"""Tests on paired differences: permutation, correction for several controls, and what n can show.

The unit is the task, as in `lit_qagent.evaluation.statistics`: one difference per task.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import permutation_test

NUM_PERMUTATIONS = 10_000
POWER = 0.8
ALPHA = 0.05
_BATCH = 250
_SAME_WITHIN = 1e-9


def permutation_p_values(
    table: Mapping[str, NDArray[np.float64]], *, seed: int = 0
) -> dict[str, float | None]:
    """Return the two-sided p-value of every row of paired differences.

    If the two agents were alike, each difference could as well have the other sign. The p-value
    is the share of all ways to choose the signs whose mean is at least as far from zero; all of
    them are tried where there are at most `NUM_PERMUTATIONS`, else that many are drawn.

    Args:
        table: Quantity -> one difference per task; all quantities in the same order of tasks.
        seed: Seed of the drawing.

    Returns:
        Quantity -> p-value; None with fewer than two tasks.
    """
    num_tasks = next((len(row) for row in table.values()), 0)
    if num_tasks < 2:
        return dict.fromkeys(table)
    found = permutation_test(
        (np.stack(list(table.values())),),  # [quantities, tasks]
        np.mean,
        permutation_type="samples",
        n_resamples=NUM_PERMUTATIONS,
        batch=_BATCH,
        vectorized=True,
        axis=-1,
        rng=np.random.default_rng(seed),
    )
    return {name: float(p) for name, p in zip(table, found.pvalue, strict=True)}


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the p-values corrected for their number by Holm's step-down method.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none gets below the one
    before it. None stays None and does not count.

    Examples:
        >>> holm({"plain": 0.01, "random": 0.04, "majority": 0.03})
        {'plain': 0.03, 'random': 0.06, 'majority': 0.06}
    """
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    highest = 0.0
    for rank, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[name] = highest
    return corrected


def minimum_detectable_difference(differences: ArrayLike, *, num_tests: int = 1) -> float | None:
    """Return the smallest true difference that this many tasks would show four times out of five.

    ``(z(1 - alpha / 2) + z(power)) * s / sqrt(n)`` with the standard deviation s of the differences
    at hand, alpha 0.05 / ``num_tests`` two-sided and power 0.8. None with fewer than two tasks, or
    if the differences do not vary: a spread of zero does not mean that any difference would be
    shown.

    Args:
        differences: One per task.
        num_tests: How many tests `holm` corrects together. Each is taken to have the smallest p of
            them, so with several this is an upper bound.
    """
    values = np.asarray(differences, dtype=np.float64)
    num_tasks = len(values)
    if num_tasks < 2 or np.allclose(values, values[0], rtol=0.0, atol=_SAME_WITHIN):
        return None
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - ALPHA / num_tests / 2) + normal.inv_cdf(POWER)
    return quantiles * float(values.std(ddof=1)) / math.sqrt(num_tasks)
