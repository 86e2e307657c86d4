"""The settings of a search."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from lit_qagent.core.errors import ConfigError

# Settings that came later: at these values a search is what it was before they came, and they are
# not written down, so that the stores of then can still be gone on with.
_LATER = (
    "variant",
    "expansion",
    "leaves_in_flight",
    "prior_weight",
    "prior_temperature",
    "value_of_q",
    "score_weight",
)

_WITHOUT_REWARD = ("q_only", "score_only")


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """How a tree is searched.

    Attributes:
        num_iterations: Iterations per tree at most (m of the paper).
        num_candidates: Actions sampled per expansion (n of the paper).
        eta: Weight of exploration in UCT.
        truncation_reward: What an episode cut by the step limit earns, 0 or less (the paper takes
            -1 for HotPotQA and -0.5 for WebShop).
        stop_at_success: End a tree at its first full reward; searching on gives better-estimated
            values and more pairs.
        revisit_ends: Let selection come back to ends that are known already, as plain UCT does:
            values then approach those of the best play, and only num_iterations or a success
            ends a tree. False spends every iteration on something new and ends when nothing is
            left. An end that is visited again is worth its true reward, so q_only and score_only
            refuse it.
        variant: How leaves are selected and evaluated. All but q_value use the true reward in
            every evaluation; all end early on it if stop_at_success. uct: the paper's search, one
            rollout of the policy. puct: a Q-model says where to look first. q_rollout: in rollouts
            a Q-model picks among num_candidates actions. q_value: no rollouts, a Q-model's value
            instead, which asks for a smaller eta; the true reward only at ends that the tree
            reaches. lats: the policy (or the critic) scores new actions and reflects on failed
            episodes, which tells it the reward. q_only and score_only: a Q-model's values, or the
            scores of the policy (or the critic), and the true reward nowhere (without
            stop_at_success), for agents that search before they act.
        expansion: How candidates come; none of them sees a reward. vanilla: one request of n
            samples. conditional: one by one, each request showing those before it. critique: one
            by one, each after the policy (or the critic) has criticised the one before.
        leaves_in_flight: Leaves of one tree that are evaluated at the same time (WU-UCT); 1 is
            the sequential search.
        prior_weight: Weight of exploration in puct.
        prior_temperature: Temperature of the softmax that makes priors of Q values in puct.
        value_of_q: What q_value makes of a Q value: its sigmoid, or the value as it is.
        score_weight: Share of the score by the policy (or the critic) in the first value of an
            action in lats; the rest is the share of the samples that propose it.
    """

    num_iterations: int = 30
    num_candidates: int = 5
    eta: float = 2.0
    truncation_reward: float = -1.0
    stop_at_success: bool = True
    revisit_ends: bool = False
    variant: Literal["uct", "puct", "q_rollout", "q_value", "lats", "q_only", "score_only"] = "uct"
    expansion: Literal["vanilla", "conditional", "critique"] = "vanilla"
    leaves_in_flight: int = 1
    prior_weight: float = 1.25
    prior_temperature: float = 1.0
    value_of_q: Literal["sigmoid", "identity"] = "sigmoid"
    score_weight: float = 0.5

    def __post_init__(self) -> None:
        for name in ("num_iterations", "num_candidates", "leaves_in_flight"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.{name} must be >= 1, got {getattr(self, name)}")
        for name in ("eta", "prior_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"search.{name} must be >= 0, got {getattr(self, name)}")
        if self.revisit_ends and self.variant in _WITHOUT_REWARD:
            raise ConfigError(
                f"search.revisit_ends is true, but search.variant {self.variant!r} never looks at "
                "the true reward, which is what an end is worth when it is visited again; set "
                "revisit_ends false or take another variant"
            )
        if self.prior_temperature <= 0:
            raise ConfigError(f"search.prior_temperature must be > 0, got {self.prior_temperature}")
        if not 0 <= self.score_weight <= 1:
            raise ConfigError(f"search.score_weight must be 0 to 1, got {self.score_weight}")
        if self.truncation_reward > 0:
            raise ConfigError(
                f"search.truncation_reward must be <= 0, got {self.truncation_reward}; "
                "a cut episode must never look better than a failed one"
            )

    def manifest(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        defaults = {each.name: each.default for each in fields(self)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in _LATER or value != defaults[name]
        }
