"""The audit of a set of pairs as one HTML page with plots; no script, no network."""

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence

from data_collection.audit import lengths
from lit_qagent.core.pairs import PairCard, PreferencePair

_NUM_BINS = 20
_MAX_LABELS = 12
_WIDTH, _HEIGHT, _FOOT = 640, 180, 34
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:46rem;padding:0 1rem}"
    "svg{width:100%;height:auto}rect{fill:#4477aa}"
    "text{font-size:11px;fill:#333}td,th{padding:.1rem .8rem .1rem 0;text-align:left}"
    "pre{overflow:auto;background:#f4f4f4;padding:.6rem}"
)

Bars = list[tuple[str, int]]


def audit_page(pairs: Sequence[PreferencePair], card: PairCard, notes: Mapping[str, object]) -> str:
    """Return the page.

    Args:
        pairs: At least one pair.
        card: Where they come from.
        notes: Further facts: words to value.
    """
    margins = [pair.q_chosen - pair.q_rejected for pair in pairs]
    by_depth = Counter(pair.depth for pair in pairs)
    chosen, rejected = zip(*[lengths(pair) for pair in pairs], strict=True)
    longer = sum(a > b for a, b in zip(chosen, rejected, strict=True))
    facts = {
        "Pairs": card.num_pairs,
        "Trees": card.num_trees,
        "Rule": card.rule["name"],
        "Pairs whose chosen action is the longer one": f"{longer} ({longer / len(pairs):.0%})",
        "Pairs of margin 0 or less": sum(margin <= 0 for margin in margins),
        **notes,
    }
    left_out = {reason.replace("_", " "): count for reason, count in card.removed.items()}
    lineage = {
        name: getattr(card, name)
        for name in ("environment", "policy", "search", "prompt", "rule", "seed", "pairs_hash")
    }
    visits = [count for pair in pairs for count in (pair.visits_chosen, pair.visits_rejected)]
    sections = [
        ("Facts", _table(facts)),
        ("Left out", _table(left_out or {"nothing": ""})),
        ("Pairs by depth", bars([(str(depth), by_depth[depth]) for depth in sorted(by_depth)])),
        ("Margin: q chosen minus q rejected", bars(binned(margins))),
        ("Visits behind a value, chosen and rejected", bars(binned(visits))),
        (
            "Length bias: characters of the chosen action minus those of the rejected",
            bars(binned([a - b for a, b in zip(chosen, rejected, strict=True)])),
        ),
        ("Where it comes from", f"<pre>{html.escape(json.dumps(lineage, indent=2))}</pre>"),
    ]
    body = "".join(f"<h2>{html.escape(title)}</h2>{content}" for title, content in sections)
    title = html.escape(f"Audit of preference pairs: {card.environment['name']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )


def binned(values: Sequence[float]) -> Bars:
    """Count values in bins of equal width; few distinct values are bins of their own.

    Examples:
        >>> binned([0, 1, 1])
        [('0', 1), ('1', 2)]
    """
    distinct = sorted(set(values))
    if len(distinct) <= _NUM_BINS:
        counts = Counter(values)
        return [(f"{value:g}", counts[value]) for value in distinct]
    low, high = distinct[0], distinct[-1]
    width = (high - low) / _NUM_BINS
    numbers = Counter(min(int((value - low) / width), _NUM_BINS - 1) for value in values)
    return [(f"{low + width * number:.3g}", numbers[number]) for number in range(_NUM_BINS)]


def bars(counts: Bars) -> str:
    """Return a bar chart; labels are the left ends of bins, every other one if they are many."""
    every = 2 if len(counts) > _MAX_LABELS else 1
    tallest = max(count for _, count in counts)
    step = _WIDTH / len(counts)
    parts = []
    for number, (label, count) in enumerate(counts):
        height = (_HEIGHT - _FOOT - 14) * count / tallest
        left, top = number * step, _HEIGHT - _FOOT - height
        middle = left + step / 2
        parts.append(
            f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{max(step - 2, 1):.1f}" '
            f'height="{height:.1f}"/>'
            f'<text x="{middle:.1f}" y="{top - 3:.1f}" text-anchor="middle">{count}</text>'
        )
        if number % every == 0:
            parts.append(
                f'<text x="{middle:.1f}" y="{_HEIGHT - _FOOT + 14}" text-anchor="middle">'
                f"{html.escape(label)}</text>"
            )
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _table(rows: Mapping[str, object]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"
