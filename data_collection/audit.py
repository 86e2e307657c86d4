"""The audit of a set of pairs: what a person looks at before training on it."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median

from lit_qagent.core.pairs import PreferencePair

_COLUMNS = (
    "depth | pairs | margin, mean | margin, median | margin <= 0 | visits chosen | "
    "visits rejected | characters chosen | characters rejected"
)


def audit_pairs(
    pairs: Sequence[PreferencePair], removed: Mapping[str, int], notes: Mapping[str, object]
) -> str:
    """Return the audit as Markdown.

    Margins are ``q_chosen - q_rejected``; visits and lengths are means over the pairs of a depth.

    Args:
        pairs: At least one pair.
        removed: What the rule left out: reason to count.
        notes: Further facts: words to value.
    """
    depths = sorted({pair.depth for pair in pairs})
    rows = [_row(str(depth), [pair for pair in pairs if pair.depth == depth]) for depth in depths]
    rows.append(_row("all", pairs))
    rule_line = " | ".join("---" for _ in _COLUMNS.split(" | "))
    left_out = [f"- {reason.replace('_', ' ')}: {count}" for reason, count in removed.items()]
    facts = [f"- {words}: {value}" for words, value in notes.items()]
    return "\n".join(
        [
            f"| {_COLUMNS} |",
            f"| {rule_line} |",
            *rows,
            "",
            "Left out:",
            "",
            *(left_out or ["- nothing"]),
            "",
            "Also:",
            "",
            *facts,
        ]
    )


def lengths(pair: PreferencePair) -> tuple[int, int]:
    """Return the characters of the chosen and of the rejected actions."""
    chosen, rejected = (
        sum(len(each["content"]) for each in messages if each["role"] == "assistant")
        for messages in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def _row(label: str, pairs: Sequence[PreferencePair]) -> str:
    margins = [pair.q_chosen - pair.q_rejected for pair in pairs]
    cells = [
        label,
        str(len(pairs)),
        f"{fmean(margins):.3f}",
        f"{median(margins):.3f}",
        str(sum(margin <= 0 for margin in margins)),
        _mean(pairs, lambda pair: pair.visits_chosen),
        _mean(pairs, lambda pair: pair.visits_rejected),
        _mean(pairs, lambda pair: lengths(pair)[0]),
        _mean(pairs, lambda pair: lengths(pair)[1]),
    ]
    return f"| {' | '.join(cells)} |"


def _mean(pairs: Sequence[PreferencePair], of: Callable[[PreferencePair], int]) -> str:
    return f"{fmean(of(pair) for pair in pairs):.1f}"
