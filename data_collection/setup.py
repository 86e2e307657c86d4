"""What all trees of a collection share."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data_collection.asking import ASKING_VERSION
from data_collection.spec import SearchSpec
from data_collection.variants import VARIANTS
from lit_qagent.agents.prompts import PROMPT_VERSION, PromptSpec, differing_forms
from lit_qagent.agents.selection import Scorer
from lit_qagent.core.errors import CheckpointError, ConfigError
from lit_qagent.core.records import Sampling
from lit_qagent.environments.base import Environment
from lit_qagent.policies.base import Policy


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
        scorer: The Q-model, for variants that need one.
        step_timeout_s: Seconds that one step of the world may take; one that takes longer is cut,
            and the search goes on elsewhere. None waits for ever.
        critic: Who criticises, scores and reflects; None is the policy itself.
        recipe: What the other fields were built from, as in a config; executors need it that
            build them again elsewhere.

    Raises:
        ConfigError: The variant needs a scorer and there is none, or a scorer or critic is given
            that the search does not use.
        CheckpointError: The scorer was trained on prompts of another form.
    """

    environment: Environment
    policy: Policy
    search: SearchSpec
    prompt: PromptSpec
    sampling: Sampling
    seed: int
    scorer: Scorer | None = None
    step_timeout_s: float | None = None
    critic: Policy | None = None
    recipe: Mapping[str, Any] | None = None

    @property
    def asks_critic(self) -> bool:
        """True if the search asks for more than actions."""
        return self.search.variant in ("lats", "score_only") or self.search.expansion == "critique"

    def __post_init__(self) -> None:
        needs_scorer = VARIANTS[self.search.variant].needs_scorer
        if needs_scorer and self.scorer is None:
            raise ConfigError(
                f"search.variant {self.search.variant!r} needs a Q-model; give --scorer, "
                "a class with `async score(history, candidates)`"
            )
        if self.scorer is not None and not needs_scorer:
            using = ", ".join(name for name, each in VARIANTS.items() if each.needs_scorer)
            raise ConfigError(
                f"a scorer was given, but search.variant {self.search.variant!r} does not use it; "
                f"leave it out or take one of {using}"
            )
        if self.critic is not None and not self.asks_critic:
            raise ConfigError(
                "a critic was given, but nothing asks it; leave it out, or take search.variant "
                "'lats' or 'score_only' or search.expansion 'critique'"
            )
        self._check_form()
        if self.step_timeout_s is not None and self.step_timeout_s <= 0:
            raise ConfigError(f"step_timeout_s must be > 0, got {self.step_timeout_s}")

    def _check_form(self) -> None:
        """Refuse a Q-model that was trained on prompts of another form than it would see here."""
        lineage = _settings_of(self.scorer).get("lineage", {}) if self.scorer else {}
        differing = differing_forms(self.prompt, lineage.get("prompt") or {})
        if differing:
            raise CheckpointError(
                f"the scorer's Q-model was trained on other prompts: {'; '.join(differing)}; set "
                "prompt as in training, or give a Q-model that was trained on such prompts"
            )

    def manifest(self) -> dict[str, Any]:
        """Return everything that decides what the trees look like, as plain values."""
        settings: dict[str, Any] = {
            "environment": self.environment.settings(),
            "prompt": asdict(self.prompt) | {"version": PROMPT_VERSION},
            "policy": self.policy.settings(),
            "search": self.search.manifest(),
            "sampling": asdict(self.sampling),
            "seed": self.seed,
        }
        if self.scorer is not None:
            settings["scorer"] = _settings_of(self.scorer)
        if self.critic is not None:
            settings["critic"] = self.critic.settings()
        if self.search.variant in ("lats", "score_only") or self.search.expansion != "vanilla":
            settings["asking_version"] = ASKING_VERSION
        return settings


def _settings_of(scorer: Scorer) -> dict[str, Any]:
    """Return what a scorer says of itself, or at least the name of its class."""
    settings: dict[str, Any] = getattr(scorer, "settings", dict)()
    return {"class": f"{type(scorer).__module__}.{type(scorer).__qualname__}"} | settings
