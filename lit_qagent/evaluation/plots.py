"""The plots of a report as SVG text: means and differences with their intervals."""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from lit_qagent.evaluation.tables import FLAG, flagged, flagged_pair, num_candidates

_INK = "#1f2933"
_ACCENT = "#2563a8"
_ROW_INCHES = 0.42
_LEGEND_CHARACTERS = 60
_LEGEND_INCHES = 0.2  # height of a line
_LEGEND_GAP = 8  # the piece of line beside a name, in characters


def reward_plot(agents: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw the mean reward of each agent with its interval; agents without a mean are left out."""
    rows = {
        flagged(name, row): (row["reward"], row["intervals"]["reward"])
        for name, row in agents.items()
        if "reward" in row
    }
    label = f"mean reward{_flag_note(agents)}"
    return _interval_plot(rows, label=label, from_zero=True)


def difference_plot(report: Mapping[str, Any]) -> str:
    """Draw each difference in reward of a report with its interval, and a line at zero."""
    differences = report["differences"]
    rows = {
        flagged_pair(name, report): (row["mean"], row)
        for name, row in differences.items()
        if row["tasks"]
    }
    label = f"difference in mean reward{_flag_note(report['agents'])}"
    return _interval_plot(rows, label=label, from_zero=False)


def report_plots(report: Mapping[str, Any]) -> dict[str, str]:
    """Return every plot of a report by its name; those with nothing to show are left out."""
    plots = {
        "reward": reward_plot(report["agents"]),
        "differences": difference_plot(report),
        **curve_plots(report["agents"], report["sampling"]),
    }
    return {name: plot for name, plot in plots.items() if plot}


def curve_plots(
    agents: Mapping[str, Mapping[str, Any]], sampling: Mapping[str, Any]
) -> dict[str, str]:
    """Draw reward against candidates per decision and against tokens per episode.

    Agents of one selector, one sampling, one kind of trials and equal options of all are joined by
    a line. An adaptive agent stands where it sampled on average, not at its limit, and one that
    searches first at the candidates of an expansion. The curve over candidates is left out if none
    of these groups has several numbers of them, and both are with fewer than two agents.

    Args:
        agents: Those of a report.
        sampling: How an agent samples that does not say otherwise.
    """
    rows = [row for row in agents.values() if "reward" in row]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_group(row, sampling, rows), []).append(row)
    if len(rows) < 2:
        return {}
    note = _flag_note(agents)
    plots = {}
    if any(len({_num_sampled(row) for row in some}) > 1 for some in groups.values()):
        label = _candidates_label(rows) + note
        plots["reward_by_n"] = _curve_plot(groups, x_of=_num_sampled, label=label)
    label = f"prompt and generated tokens per episode{note}"
    plots["reward_by_tokens"] = _curve_plot(groups, x_of=lambda row: row["tokens"], label=label)
    return plots


def _num_sampled(row: Mapping[str, Any]) -> float:
    """Return the candidates per decision of an agent with finished episodes."""
    return float(row.get("candidates_per_decision", num_candidates(row)))


def _candidates_label(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the axis of candidates counts."""
    adaptive = any("candidates_per_decision" in row for row in rows)
    searching = any("search" in row.get("trials", {}) for row in rows)
    return (
        f"candidates per decision{', of adaptive agents the mean' if adaptive else ''}"
        f"{', of a search per expansion' if searching else ''}"
    )


def _group(
    row: Mapping[str, Any], sampling: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Return the selector and the trials by their plain class names, and what sets them apart.

    Of the many options of trials those that all such trials share are left out.
    """
    parts = [row["selector"], *([row["trials"]["class"]] if "trials" in row else [])]
    name = " + ".join(part.rpartition(".")[2].removesuffix("Selector") for part in parts)
    own = row.get("sampling") or {}
    options = {
        **row.get("selector_options", {}),
        **{key: value for key, value in own.items() if value != sampling.get(key)},
        **_own_trial_options(row, rows),
    }
    whole = ", ".join([name, *(f"{key} {value}" for key, value in options.items())])
    return flagged(whole, row)


def _own_trial_options(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the options of an agent's trials that other agents with such trials do not share."""
    if "trials" not in row:
        return {}
    kind = row["trials"]["class"]
    others = [
        _trial_options(other["trials"])
        for other in rows
        if "trials" in other and other["trials"]["class"] == kind
    ]
    return {
        key: value
        for key, value in _trial_options(row["trials"]).items()
        if any(other.get(key) != value for other in others)
    }


def _trial_options(trials: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of trials and of their search, but for its number of candidates."""
    options = {**trials, **trials.get("search", {})}
    left_out = ("class", "uses", "needs_scorer", "search", "num_candidates")
    return {key: value for key, value in options.items() if key not in left_out}


def _flag_note(agents: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line below an axis that says what the mark stands for; empty if nobody has it."""
    uses = sorted({row["uses"] for row in agents.values() if row.get("uses")})
    return f"\n{FLAG.strip()} uses {' or '.join(uses)}" if uses else ""


def _curve_plot(
    groups: Mapping[str, list[Mapping[str, Any]]],
    *,
    x_of: Callable[[Mapping[str, Any]], float],
    label: str,
) -> str:
    shown = {name: textwrap.fill(name, _LEGEND_CHARACTERS) for name in groups}
    columns = _LEGEND_CHARACTERS // (max(map(len, groups)) + _LEGEND_GAP)
    ncols = min(max(columns, 1), 3)
    num_lines = sum(name.count("\n") + 1 for name in shown.values())
    height = 3.8 + _LEGEND_INCHES * num_lines / ncols
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure = Figure(figsize=(5.4, height), layout="constrained")
        axes = figure.add_subplot()
        for name, some in groups.items():
            rows = sorted(some, key=x_of)
            x = [x_of(row) for row in rows]
            y = [row["reward"] for row in rows]
            [line] = axes.plot(x, y, marker="o", linewidth=2, markersize=6, label=shown[name])
            for row in rows:
                ends = row["intervals"]["reward"]
                if ends["low"] is not None:
                    axes.vlines(
                        x_of(row), ends["low"], ends["high"], color=line.get_color(), alpha=0.4
                    )
        axes.set_xlabel(label)
        axes.set_ylabel("mean reward")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=ncols, frameon=False)
        return _svg(figure)


def _interval_plot(
    rows: Mapping[str, tuple[float, Mapping[str, float | None]]], *, label: str, from_zero: bool
) -> str:
    """Draw one row per name: a dot at the mean, a bar over the interval; empty without rows."""
    if not rows:
        return ""
    # Texts stay texts: readable by screen readers, and no glyph ids that two plots would share.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure = Figure(figsize=(6.4, 0.8 + _ROW_INCHES * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for position, (mean, interval) in enumerate(rows.values()):
            if interval["low"] is not None and interval["high"] is not None:
                ends = (interval["low"], interval["high"])
                axes.plot(ends, (position, position), color=_ACCENT, linewidth=3, alpha=0.45)
            axes.plot([mean], [position], marker="o", color=_ACCENT, markersize=7)
        axes.set_yticks(range(len(rows)), labels=list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label)
        if from_zero:
            axes.set_xlim(left=0)
        else:
            axes.axvline(0, color=_INK, linewidth=1)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]
