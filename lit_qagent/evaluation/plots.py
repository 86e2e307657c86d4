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
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]
