"""What a tree and a run may cost at most."""

from dataclasses import dataclass, field, fields
from functools import cached_property

from data_collection.iterations import Cost
from lit_qagent.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits; what is not given is not limited. The iteration that crosses one is kept.

    Attributes:
        iterations: Iterations of the search.
        requests: Requests to the policy and the critic.
        tokens: Tokens of prompts and answers together.
        seconds: Wall time, in seconds.
        dollars: Price of the tokens, in dollars.
    """

    iterations: int | None = None
    requests: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    dollars: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and value <= 0:
                raise ConfigError(
                    f"a budget's {each.name} must be > 0, got {value}; leave it out for no limit"
                )

    @cached_property
    def is_set(self) -> bool:
        """True if there is any limit."""
        return any(getattr(self, each.name) is not None for each in fields(self))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of each tree and of the run, and what tokens cost.

    Attributes:
        tree: Limits of each tree; one that reaches a limit ends there, and --extend_budget goes on
            with it.
        run: Limits of one run of the command; trees in flight stay unfinished, and the next run
            goes on with them.
        dollars_per_million_prompt_tokens: Price of prompts; needed for limits in dollars.
        dollars_per_million_generated_tokens: Price of answers; needed for limits in dollars.
    """

    tree: Limits = field(default_factory=Limits)
    run: Limits = field(default_factory=Limits)
    dollars_per_million_prompt_tokens: float = 0.0
    dollars_per_million_generated_tokens: float = 0.0

    def __post_init__(self) -> None:
        prices = (
            self.dollars_per_million_prompt_tokens,
            self.dollars_per_million_generated_tokens,
        )
        if min(prices) < 0:
            raise ConfigError(f"budget prices must be >= 0, got {prices}")
        is_limited = self.tree.dollars is not None or self.run.dollars is not None
        if is_limited and not any(prices):
            raise ConfigError(
                "a budget in dollars needs prices; give dollars_per_million_prompt_tokens and "
                "dollars_per_million_generated_tokens"
            )

    def dollars(self, cost: Cost) -> float:
        """Return the price of requests."""
        return (
            cost.prompt_tokens * self.dollars_per_million_prompt_tokens
            + cost.generated_tokens * self.dollars_per_million_generated_tokens
        ) / 1e6

    def reached(self, limits: Limits, cost: Cost, *, iterations: int, seconds: float) -> str | None:
        """Return the limit that was reached, in words; None if there is room."""
        if not limits.is_set:
            return None
        spent = {
            "iterations": iterations,
            "requests": cost.requests,
            "tokens": cost.prompt_tokens + cost.generated_tokens,
            "seconds": seconds,
            "dollars": self.dollars(cost),
        }
        for name, value in spent.items():
            limit = getattr(limits, name)
            if limit is not None and value >= limit:
                return f"{value:,.6g} of {limit:,} {name}"
        return None


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """What bounds a run; none of it changes what the trees look like.

    Attributes:
        budget: What the run and each of its trees may cost.
        outage_patience_s: Seconds to wait for a policy that answers nobody.
        extend_budget: Go on with trees that a budget ended.
        sequences_in_flight: Samples asked for at once, over all trees; None leaves it to the
            concurrency.
    """

    budget: Budget = field(default_factory=Budget)
    outage_patience_s: float = 120.0
    extend_budget: bool = False
    sequences_in_flight: int | None = None

    def __post_init__(self) -> None:
        if self.outage_patience_s < 0:
            raise ConfigError(f"outage_patience_s must be >= 0, got {self.outage_patience_s}")
        if self.sequences_in_flight is not None and self.sequences_in_flight < 1:
            raise ConfigError(
                f"sequences_in_flight must be >= 1, got {self.sequences_in_flight}; leave it out "
                "for as many as the concurrency brings"
            )
