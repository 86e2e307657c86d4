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


def difference_rows(found: Mapping[str, Difference]) -> dict[str, dict[str, Any]]:
    """Return several differences as JSON values, their tests corrected for their number.

    Args:
        found: Name -> difference; together one family of tests.

    Returns:
        Name -> ``mean``, ``low``, ``high``, ``verdict``, ``p_value``, ``p_holm`` and
        ``detectable`` of the reward; ``tasks`` and ``excluded_episodes``; the estimates and
        verdicts of the other quantities under ``others``, and the tests of all under ``tests``.
        Verdicts follow the corrected p-value.
    """
    tests = _tests(found)
    return {
        name: {
            **_estimates(difference, tests[name]),
            **tests[name].get(MAIN, _NO_TEST),
            "tests": tests[name],
        }
        for name, difference in found.items()
    }


def _estimates(difference: Difference, tests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    counts = {
        "tasks": difference.tasks,
        "excluded_episodes": difference.excluded_episodes,
    }
    if not difference.estimates:
        nothing = {"mean": None, "low": None, "high": None}
        return {**nothing, **counts, "verdict": "nothing to compare", "others": {}}
    rows = {
        key: _estimate_row(key, one, tests[key]["p_holm"])
        for key, one in difference.estimates.items()
    }
    return {**rows.pop(MAIN), **counts, "others": rows}


def _estimate_row(key: str, estimate: Estimate, p_holm: float | None) -> dict[str, Any]:
    found: str = verdict(estimate, p_holm)
    if key in COSTS:
        found = {"better": "more", "worse": "less"}.get(found, found)
    return {**asdict(estimate), "verdict": found}


def _tests(found: Mapping[str, Difference]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return name -> quantity -> ``p_value``, ``p_holm`` and ``detectable``."""
    quantities = {key for difference in found.values() for key in difference.p_values}
    corrected = {
        key: holm({name: difference.p_values.get(key) for name, difference in found.items()})
        for key in quantities
    }
    return {
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
