"""What each agent costs: calls, tokens, environment steps, seconds and, with prices, dollars."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_qagent.core.errors import ConfigError
from lit_qagent.evaluation.episodes import PlayedEpisode

MATCHED_WITHIN = 0.1
_PER = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What an API takes for a million tokens, in dollars.

    Attributes:
        prompt: For tokens of prompts; a request for n samples pays its prompt once.
        generated: For generated tokens.
    """

    prompt: float
    generated: float

    def __post_init__(self) -> None:
        if self.prompt < 0 or self.generated < 0:
            raise ConfigError(
                f"prices must be >= 0, in dollars per million tokens, got prompt {self.prompt} "
                f"and generated {self.generated}"
            )


def cost_per_episode(
    episodes: Sequence[PlayedEpisode], prices: Mapping[str, float] | None
) -> dict[str, float] | None:
    """Return the mean cost of a finished episode; None if there is none.

    Args:
        episodes: Episodes of one agent.
        prices: ``prompt`` and ``generated``, see `Prices`; without them there are no dollars.

    Returns:
        ``requests``, ``prompt_tokens``, ``generated_tokens``, ``environment_steps`` (those of
        other trials and of look-ahead included), ``seconds`` (beside other episodes in flight,
        so of use only between agents of one run) and ``dollars`` if there are prices.
    """
    finished = [episode for episode in episodes if episode.failure is None]
    if not finished:
        return None
    totals: dict[str, float] = {
        "requests": sum(e.requests for e in finished),
        "prompt_tokens": sum(e.prompt_tokens for e in finished),
        "generated_tokens": sum(e.generated_tokens for e in finished),
        "environment_steps": sum(len(e.steps) + e.extra_steps for e in finished),
        "seconds": sum(e.seconds for e in finished),
    }
    if prices:
        totals["dollars"] = dollars(totals, prices)
    return {name: total / len(finished) for name, total in totals.items()}


def dollars(tokens: Mapping[str, float], prices: Mapping[str, float]) -> float:
    """Return what tokens cost.

    Args:
        tokens: ``prompt_tokens`` and ``generated_tokens``; other counts are free.
        prices: ``prompt`` and ``generated``, see `Prices`.
    """
    return sum(tokens[f"{kind}_tokens"] * prices[kind] for kind in ("prompt", "generated")) / _PER


def candidates_per_decision(episodes: Sequence[PlayedEpisode]) -> float | None:
    """Return how many candidates the decisions of all finished episodes had on average, or None."""
    counts = [len(step.candidates) for e in episodes if e.failure is None for step in e.steps]
    return sum(counts) / len(counts) if counts else None


def cost_ratio(
    treatment: Mapping[str, float] | None, control: Mapping[str, float] | None
) -> float | None:
    """Return the treatment's cost over the control's: dollars if priced, else tokens; or None."""
    if treatment is None or control is None:
        return None
    ours, theirs = _main_cost(treatment), _main_cost(control)
    return ours / theirs if theirs else None


def nearest_in_cost(
    treatment: str,
    controls: Sequence[str],
    agents: Mapping[str, Mapping[str, Any]],
    cost: Mapping[str, Mapping[str, float] | None],
) -> dict[str, list[str]]:
    """Return the agents to compare with at equal cost: of each control's variants the nearest one.

    Variants differ in their number of candidates alone. A control without any is left out: there
    is nothing to choose. So are variants of the treatment, of which it is itself the nearest.

    Args:
        treatment: The agent of interest.
        controls: The agents it is compared with.
        agents: Name -> its settings.
        cost: Name -> mean cost of a finished episode, None without any.

    Returns:
        Name of the nearest -> names of all that there were to choose from.
    """
    ratios = {
        name: cost_ratio(cost.get(treatment), cost.get(name))
        for name in agents
        if name != treatment
    }
    own = _rule(agents[treatment])
    found: dict[str, list[str]] = {}
    for rule in dict.fromkeys(_rule(agents[name]) for name in controls):
        distances = {
            name: abs(math.log(ratio))
            for name, ratio in ratios.items()
            if ratio and _rule(agents[name]) == rule != own
        }
        if len(distances) > 1:
            found[min(distances, key=lambda name: distances[name])] = list(distances)
    return found


def _rule(agent: Mapping[str, Any]) -> str:
    """Return all settings of an agent but its number of candidates."""
    return json.dumps({k: v for k, v in agent.items() if k != "num_candidates"}, sort_keys=True)


def is_matched(ratio: float | None) -> bool:
    """True if two agents cost the same within a tenth."""
    return ratio is not None and abs(ratio - 1) <= MATCHED_WITHIN


def _main_cost(cost: Mapping[str, float]) -> float:
    return cost.get("dollars", cost["prompt_tokens"] + cost["generated_tokens"])
