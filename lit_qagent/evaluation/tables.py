"""The tables of a report as rows of texts, the heading first."""

from collections.abc import Mapping
from typing import Any

from lit_qagent.evaluation.outcomes import OUTCOMES

MAIN = "reward"
FLAG = " †"
_NO_VALUES = ("FirstSelector", "RandomSelector", "MajoritySelector")
_SEARCH = "SearchTrials"
_VALUE_NAMES = {
    "MostLikelySelector": "log-probability per token",
    "OracleSelector": "true return",
}

_HOW_TO_CROSS_FIT = "With rollouts of 2 or more the oracle measures regret without this bias."
_NOT_KEPT = "This folder does not keep the single rollouts, which would avoid it."

Rows = list[list[str]]


def agent_table(report: Mapping[str, Any], *, intervals: bool = True) -> Rows:
    """Return the table of agents; with intervals it is wide."""
    scores = [MAIN, "success", *report["metrics"]]
    rows = [["agent", "n", *scores, "steps", "invalid", "tokens", "episodes", "failed"]]
    for name, row in report["agents"].items():
        if "intervals" in row:
            shown = [with_interval(row[key], row["intervals"][key]) for key in scores]
            cells = shown if intervals else [f"{row[key]:.3f}" for key in scores]
            cells += [f"{row['steps']:.1f}", f"{row['invalid_rate']:.1%}", f"{row['tokens']:.0f}"]
        else:
            cells = ["-"] * (len(scores) + 3)
        counts = [str(row["episodes"]), str(row["failures"])]
        rows.append([flagged(name, row), _candidates_text(row), *cells, *counts])
    return rows


def failure_table(report: Mapping[str, Any], *, intervals: bool = True) -> Rows:
    """Return what agents earned with failures as reward 0; empty where no episode failed."""
    if not report["episodes"]["failed"]:
        return []
    scores = [MAIN, "success", *report["metrics"]]
    rows = [["agent", *scores, "failed"]]
    for name, row in report["agents"].items():
        found = row["failures_as_zero"]
        means = {key: one["mean"] for key, one in found.items()}
        cells = ["-"] * len(scores)
        if found:
            shown = [with_interval(means[key], found[key]) for key in scores]
            cells = shown if intervals else [f"{means[key]:.3f}" for key in scores]
        failed = f"{row['failures']} of {row['episodes'] + row['failures']}"
        rows.append([flagged(name, row), *cells, failed])
    return rows


def difference_table(
    report: Mapping[str, Any], *, brief: bool = False, part: str = "differences"
) -> Rows:
    """Return the table of differences in reward of a part of the report; brief fits a terminal."""
    extra = [] if brief else ["p", "detectable", "cost"]
    rows = [["treatment - control", MAIN, "verdict", "p (Holm)", *extra, "tasks", "left out"]]
    for name, row in report[part].items():
        shown = with_interval(row["mean"], row, signed=True) if row["tasks"] else "-"
        cells = [shown, row["verdict"], p_text(row["p_holm"])]
        if not brief:
            cells += [p_text(row["p_value"]), or_dash(row["detectable"], ".3f")]
            cells.append(_cost_text(row))
        title = flagged_pair(name, report)
        rows.append([title, *cells, str(row["tasks"]), str(row["excluded_episodes"])])
    return rows


def nearest_note(report: Mapping[str, Any]) -> str:
    """Return which agents are nearest in cost, and of which they were chosen."""
    chosen = (
        f"{name.partition(' - ')[2]} (of {', '.join(row['variants'])})"
        for name, row in report["differences_at_nearest_cost"].items()
    )
    return "; ".join(chosen)


def shortened_table(report: Mapping[str, Any]) -> Rows:
    """Return what was left out or cut, by agent."""
    head = ["agent", "failed episodes", "steps dropped from prompts"]
    rows = [[*head, "candidates cut by the token limit"]]
    for name, row in report["agents"].items():
        counts = (row["failures"], row["dropped_steps"], row["cut_candidates"])
        rows.append([name, *map(str, counts)])
    return rows


def outcome_table(report: Mapping[str, Any]) -> Rows:
    """Return how the episodes of each agent ended; a class without any episode has no column."""
    agents = report["agents"]
    found = [name for name in OUTCOMES if any(row["outcomes"][name] for row in agents.values())]
    rows = [[name, *(str(row["outcomes"][end]) for end in found)] for name, row in agents.items()]
    return [["agent", *found], *rows]


def cost_table(report: Mapping[str, Any]) -> Rows:
    """Return what a finished episode of each agent costs on average."""
    agents = report["agents"]
    priced = any("dollars" in (row["cost"] or {}) for row in agents.values())
    head = ["agent", "LLM calls", "prompt tokens", "generated tokens", "environment steps"]
    rows = [[*head, "seconds", *(["dollars"] if priced else [])]]
    forms = {
        "requests": ".1f",
        "prompt_tokens": ".0f",
        "generated_tokens": ".0f",
        "environment_steps": ".1f",
        "seconds": ".2f",
        **({"dollars": ".6f"} if priced else {}),
    }
    for name, row in agents.items():
        cost = row["cost"] or {}
        cells = [or_dash(cost.get(key), form) for key, form in forms.items()]
        rows.append([flagged(name, row), *cells])
    return rows


def spent_text(report: Mapping[str, Any]) -> str:
    """Return what playing has cost, failed and repeated episodes included, as far as is known."""
    tokens = f"{report['prompt_tokens']} prompt and {report['generated_tokens']} generated tokens"
    parts = [f"{report['seconds']:.0f} s", f"{report['requests']} requests", tokens]
    if "dollars" in report:
        parts.append(_dollars_text(report["dollars"]))
    parts.append(f"peak resident memory {report['peak_rss_gb']:.1f} GB")
    text = ", ".join(parts)
    if not report["cut_sessions"]:
        return text
    return (
        f"at least {text}. Sessions that were killed, interrupted or are not over: "
        f"{report['cut_sessions']}; what their unfinished episodes have cost is in none of these "
        "numbers"
    )


def depth_table(report: Mapping[str, Any]) -> Rows:
    """Return how the agents decide at each depth."""
    rows = [["agent", "depth", "decisions", "invalid", "different commands", "value gained"]]
    for name, some in report["by_depth"].items():
        for row in some:
            cells = [str(row["decisions"]), f"{row['invalid_rate']:.1%}", f"{row['distinct']:.1f}"]
            rows.append([name, str(row["depth"]), *cells, or_dash(row["score_gain"], "+.3f")])
    return rows


def regret_table(report: Mapping[str, Any]) -> Rows:
    """Return by how much each agent falls short of the oracle's best action; head alone if none."""
    rows = [["agent", "depth", "decisions measured", "regret", "best action taken"]]
    for name, some in report["regret_by_depth"].items():
        for row in some:
            cells = [str(row["decisions"]), f"{row['regret']:.3f}", f"{row['best_taken']:.0%}"]
            rows.append([name, str(row["depth"]), *cells])
    return rows


def regret_note(report: Mapping[str, Any]) -> str:
    """Return how regret was measured, and which way its error goes."""
    measure = report["regret_measure"]
    k = measure["rollouts"]
    rollouts = "the one rollout" if k == 1 else f"the {k} rollouts"
    if measure["cross_fitted"]:
        how = (
            "One half of the rollouts says which candidate is best, the other half what it and the "
            "action taken are worth, both ways averaged: noise does not raise the regret. It may "
            "fall below 0 by chance, and is rather too small, as half of the rollouts may miss the "
            "best candidate."
        )
    else:
        how = (
            f"Biased upwards: {rollouts} of each candidate say both which is best and what it is "
            "worth, so noise makes regret even where all candidates are equally good. "
        )
        how += _HOW_TO_CROSS_FIT if k == 1 else _NOT_KEPT
    return (
        "Regret: value of the best candidate less that of the action taken. A candidate's value is "
        f"estimated: the mean true reward of k = {k} episode{'s' if k > 1 else ''} that the policy "
        f"plays on from it, by the look-ahead of {measure['oracle']}. {how} Best action taken: "
        "share of the decisions whose action has the highest mean of all rollouts, which is partly "
        "luck. Measured where the agent's episode had gone as the oracle's up to there, so deeper "
        "rows hold fewer decisions."
    )


def agreement_table(report: Mapping[str, Any]) -> Rows:
    """Return how far the Q-model ranks siblings as a search did; head alone if not measured."""
    rows = [["depth", "sets of siblings", "actions", "Kendall's tau", "best action first"]]
    for row in report["agreement_by_depth"]:
        counts = [str(row[key]) for key in ("depth", "sets", "actions")]
        rows.append([*counts, f"{row['tau']:+.3f}", f"{row['best_picked']:.0%}"])
    return rows


def flagged(name: str, row: Mapping[str, Any]) -> str:
    """Return an agent's name, marked if it uses what no agent can know in earnest."""
    return name + FLAG if row.get("uses") else name


def flagged_pair(name: str, report: Mapping[str, Any]) -> str:
    """Return the name of a difference, marked if one of its agents is."""
    agents = report["agents"]
    return name + FLAG if any(agents[one].get("uses") for one in name.split(" - ")) else name


def num_candidates(row: Mapping[str, Any]) -> int:
    """Return the most candidates of a decision; of a search before acting, of an expansion."""
    return int(row.get("trials", {}).get("search", row)["num_candidates"])


def value_name(row: Mapping[str, Any]) -> str:
    """Return what an agent's values are, for the reader of an episode."""
    selector = row["selector"].rpartition(".")[2]
    name = _VALUE_NAMES.get(selector, "Q")
    if "trials" not in row or row["trials"]["class"].rpartition(".")[2] != _SEARCH:
        return name
    search = "value of the search"
    return search if selector in _NO_VALUES else f"{search}, behind it {name}"


def flag_notes(report: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that marked agents use."""
    by_use: dict[str, list[str]] = {}
    for name, row in report["agents"].items():
        if row.get("uses"):
            by_use.setdefault(row["uses"], []).append(name)
    return [
        f"{', '.join(names)}: uses {what}, so not to be had in a single trial in earnest"
        for what, names in by_use.items()
    ]


def with_interval(
    mean: float, interval: Mapping[str, float | None], *, signed: bool = False
) -> str:
    """Return a mean and its interval in brackets."""
    form = "+.3f" if signed else ".3f"
    if interval["low"] is None:
        return f"{mean:{form}} (no interval)"
    return f"{mean:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"


def p_text(p_value: float | None) -> str:
    """Return a p-value; very small ones as a bound."""
    if p_value is None:
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _candidates_text(row: Mapping[str, Any]) -> str:
    """Return an agent's candidates per decision: of an adaptive one their limit and their mean."""
    limit = str(num_candidates(row))
    if "candidates_per_decision" not in row:
        return limit
    mean = row["candidates_per_decision"]
    return f"≤ {limit}" if mean is None else f"≤ {limit}, mean {mean:.1f}"


def _cost_text(row: Mapping[str, Any]) -> str:
    if row["cost_ratio"] is None:
        return "-"
    return f"x {row['cost_ratio']:.2f}{' (matched)' if row['cost_matched'] else ''}"


def _dollars_text(value: float) -> str:
    """Return dollars to the cent, less than one to a millionth."""
    return f"{value:,.2f} dollars" if value >= 1 else f"{value:.6f} dollars"


def or_dash(value: float | None, form: str) -> str:
    """Return a number in a format, or a dash where there is none."""
    return "-" if value is None else f"{value:{form}}"
