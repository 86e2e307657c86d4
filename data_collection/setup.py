"""What a collection is made with: the settings of the search, and all that its trees share."""

from dataclasses import asdict, dataclass
from typing import Any

from lit_qagent.agents.prompts import PROMPT_VERSION, PromptSpec
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Sampling
from lit_qagent.environments.base import Environment
from lit_qagent.policies.base import Policy


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """How a tree is searched.

    Attributes:
        num_iterations: Iterations per tree at most (m of the paper).
        num_candidates: Actions sampled per expansion, one request (n of the paper).
        eta: Weight of exploration in UCT.
        truncation_reward: What an episode cut by the step limit earns, below 0 (the paper takes
            -1 for HotPotQA and -0.5 for WebShop).
        stop_at_success: End a tree at its first full reward; searching on gives better-estimated
            values and more pairs.
        revisit_ends: Let selection come back to ends that are known already, as plain UCT does:
            values then approach those of the best play, and only num_iterations or a success
            ends a tree. False spends every iteration on something new and ends when nothing is
            left.
    """

    num_iterations: int = 30
    num_candidates: int = 5
    eta: float = 2.0
    truncation_reward: float = -1.0
    stop_at_success: bool = True
    revisit_ends: bool = False

    def __post_init__(self) -> None:
        for name in ("num_iterations", "num_candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.{name} must be >= 1, got {getattr(self, name)}")
        if self.eta < 0:
            raise ConfigError(f"search.eta must be >= 0, got {self.eta}")
        if self.truncation_reward > 0:
            raise ConfigError(
                f"search.truncation_reward must be <= 0, got {self.truncation_reward}; "
                "a cut episode must never look better than a failed one"
            )


@dataclass(frozen=True, kw_only=True)
class SearchSetup:
    """What all trees of a collection share.

    Attributes:
        environment: The world; it is forked, not touched.
        policy: Who proposes, in expansions and rollouts alike.
        search: How to search.
        prompt: How the world is shown.
        sampling: How to sample.
        seed: Every request's seed derives from it, the task, the iteration, the purpose and the
            step, so trees do not depend on what runs beside them.
    """

    environment: Environment
    policy: Policy
    search: SearchSpec
    prompt: PromptSpec
    sampling: Sampling
    seed: int

    def manifest(self) -> dict[str, Any]:
        """Return everything that decides what the trees look like, as plain values."""
        return {
            "environment": self.environment.settings(),
            "prompt": asdict(self.prompt) | {"version": PROMPT_VERSION},
            "policy": self.policy.settings(),
            "search": asdict(self.search),
            "sampling": asdict(self.sampling),
            "seed": self.seed,
        }
