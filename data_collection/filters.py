"""Filters that leave pairs out, each counted under its own reason."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_collection.pair_draft import DrawnPair
from lit_qagent.core.actions import canonical_command
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.pairs import ChatMessages, PreferencePair

MARGIN_TOO_SMALL = "pairs_below_min_margin"
TOO_FEW_VISITS = "pairs_below_min_visits"
TOO_LONG = "pairs_above_max_characters"
SAME_COMMAND = "pairs_of_equal_commands"
CHOSEN_INVALID = "pairs_with_invalid_chosen_action"


@dataclass(frozen=True, kw_only=True)
class PairFilter:
    """Which pairs to keep; the default keeps all.

    Attributes:
        min_margin: Least ``q_chosen - q_rejected``.
        min_visits: Least visits behind either value.
        max_characters: Longest action, in characters.
        distinct_commands: Leave out pairs whose actions give the world one command, thoughts and
            white space aside.
        valid_chosen: Leave out pairs whose chosen action the world could not carry out.
    """

    min_margin: float | None = None
    min_visits: int | None = None
    max_characters: int | None = None
    distinct_commands: bool = False
    valid_chosen: bool = False

    def __post_init__(self) -> None:
        for name in ("min_visits", "max_characters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be >= 1, got {value}; leave it out to keep all")

    def settings(self) -> dict[str, Any]:
        """Return the options that were given; ``min_margin`` always."""
        given = {name: value for name, value in asdict(self).items() if value not in (None, False)}
        return {"min_margin": self.min_margin, **given}

    def keep(self, drawn: Sequence[DrawnPair], removed: Counter[str]) -> list[DrawnPair]:
        """Return the pairs that pass; count each other one once, under the first reason."""
        kept = []
        for each in drawn:
            reason = next((reason for reason, hits in self._checks() if hits(each)), None)
            if reason is None:
                kept.append(each)
            else:
                removed[reason] += 1
        return kept

    def _checks(self) -> list[tuple[str, Callable[[DrawnPair], bool]]]:
        checks: list[tuple[str, Callable[[DrawnPair], bool]]] = []
        margin, visits, longest = self.min_margin, self.min_visits, self.max_characters
        if margin is not None:
            checks.append((MARGIN_TOO_SMALL, lambda each: _margin(each.pair) < margin))
        if visits is not None:
            checks.append((TOO_FEW_VISITS, lambda each: _visits(each.pair) < visits))
        if longest is not None:
            checks.append((TOO_LONG, lambda each: _longest(each.pair) > longest))
        if self.distinct_commands:
            checks.append((SAME_COMMAND, lambda each: _is_one_command(each.pair)))
        if self.valid_chosen:
            checks.append((CHOSEN_INVALID, lambda each: not each.is_chosen_valid))
        return checks


def _margin(pair: PreferencePair) -> float:
    return pair.q_chosen - pair.q_rejected


def _visits(pair: PreferencePair) -> int:
    return min(pair.visits_chosen, pair.visits_rejected)


def _longest(pair: PreferencePair) -> int:
    messages = [*pair.chosen, *pair.rejected]
    return max(len(each["content"]) for each in messages if each["role"] == "assistant")


def _is_one_command(pair: PreferencePair) -> bool:
    return _commands(pair.chosen) == _commands(pair.rejected)


def _commands(messages: ChatMessages) -> list[str]:
    actions = [each["content"] for each in messages if each["role"] == "assistant"]
    return [canonical_command(action) for action in actions]
