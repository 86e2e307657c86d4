"""What a loop has cost, read from what its stages have written, against its budget."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_qagent.evaluation.cost import Prices
from lit_qagent.evaluation.episodes import read_episodes
from lit_qagent.improve.record import Record, round_folder

COUNTS = ("requests", "prompt_tokens", "generated_tokens")
_PER = 1_000_000


class BudgetSpent(Exception):
    """A limit of the loop was reached."""


def count_cost(record: Record, prices: Prices | None) -> dict[str, float]:
    """Return what all rounds have cost, the one that is running included, see `round_cost`."""
    numbers = range(1, len(record.rounds) + 2)
    rounds = [round_cost(record, number, prices) for number in numbers]
    return {name: round(sum(one[name] for one in rounds), 6) for name in rounds[0]}


def round_cost(record: Record, number: int, prices: Prices | None) -> dict[str, float]:
    """Return what a round has cost: seconds, requests, tokens and, with prices, dollars."""
    folder = round_folder(record, number)
    parts = (_collected(folder / "trees"), _played(folder / "predict"))
    found = {name: float(sum(part[name] for part in parts)) for name in COUNTS}
    cost = {
        "seconds": record.seconds.get(str(number), 0.0),
        "requests": found["requests"],
        "tokens": found["prompt_tokens"] + found["generated_tokens"],
    }
    if prices:
        paid = found["prompt_tokens"] * prices.prompt + found["generated_tokens"] * prices.generated
        cost["dollars"] = round(paid / _PER, 6)
    return cost


def cost_text(cost: Mapping[str, float]) -> str:
    """Return a cost in words."""
    return ", ".join(f"{value:,.6g} {name}" for name, value in cost.items())


def refuse_overspending(spent: Mapping[str, float], limits: Mapping[str, float]) -> None:
    """Stop where a limit is reached.

    Raises:
        BudgetSpent: One is.
    """
    for name, limit in limits.items():
        if spent[name] >= limit:
            raise BudgetSpent(f"{spent[name]:,.6g} of {limit:,.6g} {name} are spent")


def collect_limits(
    spent: Mapping[str, float],
    limits: Mapping[str, float],
    own: Mapping[str, Any],
    prices: Prices | None,
) -> list[str]:
    """Return the options that keep collecting within what is left.

    Args:
        spent: What the loop has cost.
        limits: Its budget.
        own: ``budget`` of the collect config; its limits stay where they are lower.
        prices: What tokens cost.
    """
    options: list[str] = []
    run = own.get("run") or {}
    for name, limit in limits.items():
        left = limit - spent[name]
        given = run.get(name)
        if given is None or left < given:
            whole = name in ("requests", "tokens")
            options += [f"--budget.run.{name}", str(int(left) if whole else round(left, 6))]
    if "dollars" in limits and prices:
        options += ["--budget.dollars_per_million_prompt_tokens", str(prices.prompt)]
        options += ["--budget.dollars_per_million_generated_tokens", str(prices.generated)]
    return options


def _collected(folder: Path) -> Mapping[str, float]:
    path = folder / "summary.json"
    if not path.is_file():
        return dict.fromkeys(COUNTS, 0)
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _played(folder: Path) -> Mapping[str, float]:
    return read_episodes(folder).usage.to_dict()
