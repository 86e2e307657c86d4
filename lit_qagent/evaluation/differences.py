"""Differences between agents as JSON values, for reports and for the comparison of runs."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lit_qagent.evaluation.significance import holm
from lit_qagent.evaluation.statistics import Difference, Estimate, verdict
from lit_qagent.evaluation.tables import MAIN

# Quantities of which more is not better.
COSTS = frozenset({"steps", "tokens", "generated_tokens", "invalid_rate"})
_NO_TEST = {"p_value": None, "p_holm": None, "detectable": None}


def difference_row(difference: Difference) -> dict[str, Any]:
    """Return a difference as JSON values: that of the reward, and the others under ``others``."""
    counts = {
        "tasks": difference.tasks,
        "excluded_episodes": difference.excluded_episodes,
    }
    if not difference.estimates:
        nothing = {"mean": None, "low": None, "high": None}
        return {**nothing, **counts, "verdict": "nothing to compare", "others": {}}
    rows = {
        key: _estimate_row(key, one, difference.p_values[key])
        for key, one in difference.estimates.items()
    }
    return {**rows.pop(MAIN), **counts, "others": rows}


def _estimate_row(key: str, estimate: Estimate, p_value: float | None) -> dict[str, Any]:
    found: str = verdict(estimate, p_value)
    if key in COSTS:
        found = {"better": "more", "worse": "less"}.get(found, found)
    return {**asdict(estimate), "verdict": found}


def significance_rows(found: Mapping[str, Difference]) -> dict[str, dict[str, Any]]:
    """Return the tests of several differences, corrected for their number.

    Returns:
        Name -> ``p_value``, ``p_holm`` and ``detectable`` of the reward, and under ``tests`` those
        of every quantity.
    """
    quantities = {key for difference in found.values() for key in difference.p_values}
    corrected = {
        key: holm({name: difference.p_values.get(key) for name, difference in found.items()})
        for key in quantities
    }
    tests = {
        name: {
            key: {
                "p_value": p_value,
                "p_holm": corrected[key][name],
                "detectable": difference.detectable[key],
            }
            for key, p_value in difference.p_values.items()
        }
        for name, difference in found.items()
    }
    return {name: {**some.get(MAIN, _NO_TEST), "tests": some} for name, some in tests.items()}
