"""What a Q-model is made of, as YAML gives it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lit_qagent.core.errors import ConfigError
from lit_qagent.policies.dtypes import resolve_dtype
from lit_qagent.policies.smollm2 import HUB_ID, SMALL_MODEL


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Which LLM, and how it is held in memory.

    Attributes:
        name: ``SmolLM2-135M-Instruct``, a folder, or a hub id.
        revision: Commit or tag on the hub; None is the newest.
        dtype: Of the frozen weights; the adapter is float32 always. ``auto`` is replaced by what
            this machine computes fast: bfloat16, but float32 on CPUs that would have to emulate it.
        quantization: ``nf4`` (4 bits) or ``int8`` save memory and distort small models.
        attention: ``sdpa`` lets sequences share their prefixes, and so does ``eager``.
        gradient_checkpointing: Less memory for about a third more computing.
    """

    name: str = SMALL_MODEL
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantization: Literal["none", "nf4", "int8"] = "none"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", resolve_dtype(self.dtype))

    @property
    def public_name(self) -> str:
        """The name without this machine's folders."""
        if self.name == SMALL_MODEL:
            return HUB_ID
        folder = Path(self.name).expanduser()
        return folder.resolve().name if folder.is_dir() else self.name


@dataclass(frozen=True, kw_only=True)
class LoraSpec:
    """The adapter. It has no dropout: a token that branches share can have only one mask.

    Attributes:
        rank: Rank of each update, >= 1.
        alpha: Updates are scaled by ``alpha / rank``.
        target_modules: Names of the adapted layers, or every linear layer but the output one.
    """

    rank: int = 16
    alpha: int = 32
    target_modules: list[str] | Literal["all-linear"] = "all-linear"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank must be >= 1, got {self.rank}")
        if self.alpha <= 0:
            raise ConfigError(f"lora.alpha must be above 0, got {self.alpha}")
        if self.target_modules != "all-linear" and "lm_head" in self.target_modules:
            raise ConfigError(
                "lora.target_modules must not contain lm_head: the output layer is applied to "
                "action positions only, without adapter; remove it"
            )
