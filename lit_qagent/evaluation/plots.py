"""The plots of a report as SVG text: means and differences with their intervals."""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

_INK = "#1f2933"
_ACCENT = "#2563a8"
_ROW_INCHES = 0.42


def reward_plot(agents: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw the mean reward of each agent with its interval; agents without a mean are left out."""
    rows = {
        name: (row["reward"], row["intervals"]["reward"])
        for name, row in agents.items()
        if "reward" in row
    }
    return _interval_plot(rows, label="mean reward", from_zero=True)


def difference_plot(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw each difference in reward with its interval, and a line at zero."""
    rows = {name: (row["mean"], row) for name, row in differences.items() if row["tasks"]}
    return _interval_plot(rows, label="difference in mean reward", from_zero=False)


def report_plots(report: Mapping[str, Any]) -> dict[str, str]:
    """Return every plot of a report by its name; those with nothing to show are left out."""
    plots = {
        "reward": reward_plot(report["agents"]),
        "differences": difference_plot(report["differences"]),
        **curve_plots(report["agents"]),
    }
    return {name: plot for name, plot in plots.items() if plot}


def curve_plots(agents: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Draw reward against candidates per decision and against tokens per episode.

    Agents of one selector and one kind of trials are joined by a line. Empty if none of these
    groups has several numbers of candidates.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in agents.values():
        if "reward" in row:
            groups.setdefault(_group(row), []).append(row)
    if all(len({row["num_candidates"] for row in some}) < 2 for some in groups.values()):
        return {}
    tokens = "prompt and generated tokens per episode"
    return {
        "reward_by_n": _curve_plot(groups, key="num_candidates", label="candidates per decision"),
        "reward_by_tokens": _curve_plot(groups, key="tokens", label=tokens),
    }


def _group(row: Mapping[str, Any]) -> str:
    """Return the selector, and the trials if there are several, by their plain class names."""
    parts = [row["selector"], *([row["trials"]["class"]] if "trials" in row else [])]
    return " + ".join(part.rpartition(".")[2].removesuffix("Selector") for part in parts)


def _curve_plot(groups: Mapping[str, list[Mapping[str, Any]]], *, key: str, label: str) -> str:
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure = Figure(figsize=(5.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for name, some in groups.items():
            rows = sorted(some, key=lambda row: row[key])
            x = [row[key] for row in rows]
            y = [row["reward"] for row in rows]
            [line] = axes.plot(x, y, marker="o", linewidth=2, markersize=6, label=name)
            for row in rows:
                ends = row["intervals"]["reward"]
                if ends["low"] is not None:
                    axes.vlines(
                        row[key], ends["low"], ends["high"], color=line.get_color(), alpha=0.4
                    )
        axes.set_xlabel(label)
        axes.set_ylabel("mean reward")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
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
