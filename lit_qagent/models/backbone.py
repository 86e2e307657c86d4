"""The LoRA-adapted LLM: adapter on is the policy, adapter off the reference, one copy of weights.

The only module that knows peft and bitsandbytes; both are imported when a model is built.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from lit_qagent.core.errors import CheckpointError, MissingPackage, ModelError
from lit_qagent.models.attention import Rows, register_branch_attention
from lit_qagent.models.cached_attention import Group, cached_arguments
from lit_qagent.models.sharing import Way, find_way
from lit_qagent.models.specs import BackboneSpec, LoraSpec
from lit_qagent.policies.pretrained import resolve_model

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PROBE_IDS = (0, 1, 2, 3)
_NOISE = ("dropout", "pdrop", "jitter_noise")  # how configurations name it


class Backbone(nn.Module):
    """An LLM with one LoRA adapter.

    Args:
        model: The adapted model.
        spec: What it was made from.
    """

    def __init__(self, model: "PeftModel", spec: BackboneSpec) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self.train()
        self._adapter = [p for name, p in model.named_parameters() if "lora_" in name]
        self._ways: dict[str, Way | None] = {}

    @property
    def language_model(self) -> "PreTrainedModel":
        """The causal language model with the adapter's layers in it."""
        found: PreTrainedModel = self.model.get_base_model()
        return found

    @property
    def context(self) -> int | None:
        """Most positions the model knows, if it says."""
        return getattr(self.language_model.config, "max_position_embeddings", None)

    @property
    def hidden_size(self) -> int:
        """H."""
        size: int = self.language_model.config.get_text_config().hidden_size
        return size

    def shares_prefixes(self, length: int) -> bool:
        """Return whether sequences of up to ``length`` tokens may share a row.

        What the configuration does not say is tried out: recurrent layers, positions that are
        counted and not given, attention that ignores who sees whom.
        """
        config = self.language_model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        window = getattr(config, "sliding_window", None)
        if window and (kinds == {"sliding_attention"} or not hasattr(config, "layer_types")):
            # A window that is never left is none.
            kinds = {"full_attention"} if length <= window else {"sliding_attention"}
        if self.spec.attention == "flash_attention_2" or kinds != {"full_attention"}:
            return False
        return self.way is not None

    @property
    def way(self) -> Way | None:
        """How sequences that share a row are kept apart; None if the model cannot."""
        kind = self.language_model.device.type
        if kind not in self._ways:
            self._ways[kind] = find_way(self)
        return self._ways[kind]

    @property
    def is_untrained(self) -> bool:
        """True if the adapter changes nothing, as before training."""
        return not any(
            bool(p.any()) for name, p in self.model.named_parameters() if "lora_B" in name
        )

    def train(self, mode: bool = True) -> Self:
        """Stay in train mode, whatever is asked for.

        Without dropout it computes the same as eval mode, but gradient checkpointing works in it
        only, and in eval mode bitsandbytes repacks its weights for a CPU, with other numbers.
        """
        return super().train(True)

    def forward(
        self,
        token_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None,
        branches: "Rows | BlockMask | None" = None,
    ) -> Tensor:
        """Return the last hidden states.

        Args:
            token_ids: int64 [R, T].
            position_ids: int64 [R, T].
            attention_mask: bool [R, T] (False is padding; attention is causal), or [R, 1, T, T]
                (True where the row's token sees the column's); None with ``branches``.
            branches: Who sees whom, as `branches_of` gives it; for ``sdpa`` only.

        Returns:
            [R, T, H] in the model's dtype.
        """
        if branches is not None:
            # Four dimensions are handed on as they are: no mask of the whole square is made.
            unused = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=token_ids.device)
            return decode(
                self.language_model,
                input_ids=token_ids,
                position_ids=position_ids,
                attention_mask=unused,
                branches=branches,
            )
        mask = attention_mask
        if mask is not None and mask.dim() == 4 and self.spec.attention == "eager":
            # Eager attention adds its mask; a boolean one would be added as 0 and 1.
            floor = torch.finfo(self.language_model.dtype).min
            mask = torch.zeros_like(mask, dtype=self.language_model.dtype).masked_fill(~mask, floor)
        return decode(
            self.language_model,
            input_ids=token_ids,
            position_ids=position_ids,
            attention_mask=mask,
        )

    def decode_groups(self, token_ids: Tensor, position_ids: Tensor, groups: list[Group]) -> Tensor:
        """Return the last hidden states [1, T, H] of histories with kept keys and values.

        Args:
            token_ids: int64 [1, T]; the new tokens of all groups.
            position_ids: int64 [1, T].
            groups: What sees what; their memories take up the new tokens. ``sdpa`` only.
        """
        return decode(
            self.language_model,
            input_ids=token_ids,
            position_ids=position_ids,
            **cached_arguments(groups, token_ids.device),
        )

    @property
    def output_layer(self) -> nn.Module:
        """The layer from hidden states [..., H] to logits [..., V]."""
        return output_layer(self.language_model)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Switch the adapter off: the model is the one before training."""
        trainable = [p.requires_grad for p in self._adapter]
        try:
            with self.model.disable_adapter():
                yield
        finally:
            # peft makes the adapter trainable on the way out, also one that was frozen.
            for parameter, flag in zip(self._adapter, trainable, strict=True):
                parameter.requires_grad_(flag)

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter as safetensors, with the base model's public name."""
        config = self.model.peft_config["default"]
        config.base_model_name_or_path = self.spec.public_name
        config.revision = self.spec.revision
        # "auto" would ask the model hub about the base model.
        self.model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)


def build_backbone(spec: BackboneSpec, lora: LoraSpec) -> Backbone:
    """Load an LLM and put a fresh adapter on it, which changes nothing until it is trained.

    Raises:
        ModelError: The model cannot be found, read, or used.
        MissingPackage: bitsandbytes is needed and not installed.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    model = _load_model(spec)
    try:
        return Backbone(get_peft_model(model, config), spec)
    except ValueError as error:
        raise ModelError(
            f"lora.target_modules {lora.target_modules!r} do not fit {spec.name!r} ({error}); "
            "use all-linear or names of its linear layers"
        ) from error


def load_backbone(spec: BackboneSpec, adapter: Path, *, trainable: bool) -> Backbone:
    """Load an LLM with an adapter that was trained on it.

    Raises:
        CheckpointError: The adapter is damaged or was trained on another architecture.
        ModelError: The model cannot be found, read, or used.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    model = _load_model(spec)
    try:
        return Backbone(PeftModel.from_pretrained(model, adapter, is_trainable=trainable), spec)
    except (SafetensorError, RuntimeError, ValueError, OSError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]  # torch names every tensor that does not fit
        raise CheckpointError(
            f"the adapter in {str(adapter)!r} cannot be put on {spec.name!r} ({reason}); give the "
            "base model it was trained on, or export the checkpoint again"
        ) from error


def decode(model: "PreTrainedModel", **inputs: Any) -> Tensor:  # noqa: ANN401 (models differ)
    """Run a causal language model without its output layer; returns [R, T, H]."""
    hidden: Tensor = model.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden


def output_layer(model: "PreTrainedModel") -> nn.Module:
    """Return the layer from hidden states to logits."""
    layer: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return layer


def _load_model(spec: BackboneSpec) -> "PreTrainedModel":
    """Load the frozen LLM."""
    from transformers import AutoConfig, AutoModelForCausalLM

    name = resolve_model(spec.name)
    try:
        config = AutoConfig.from_pretrained(name, revision=spec.revision)
        _switch_noise_off(config)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            revision=spec.revision,
            dtype=_DTYPES[spec.dtype],
            attn_implementation=_attention(spec),
            quantization_config=_quantization(spec),
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"model {spec.name!r} cannot be loaded as {spec} ({error}); "
            "give the folder or hub id of a causal language model, or change the setting named"
        ) from error
    model.train()  # see Backbone.train
    _check_output_layer(model, spec.name)
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def _attention(spec: BackboneSpec) -> str:
    """Return the name under which transformers knows the attention."""
    return register_branch_attention() if spec.attention == "sdpa" else spec.attention


def _quantization(spec: BackboneSpec) -> Any:  # noqa: ANN401 (a lazily imported class)
    """Return how transformers shall quantise, or None."""
    if spec.quantization == "none":
        return None
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise MissingPackage(
            f"quantization {spec.quantization!r} needs bitsandbytes, which is not installed; "
            "pip install bitsandbytes, or set quantization to none"
        )
    if spec.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=_DTYPES[spec.dtype],
    )


def _switch_noise_off(config: Any) -> None:  # noqa: ANN401 (any model's configuration)
    """Make training and scoring the same function; with dropout the reference would be random."""
    for name, value in vars(config).items():
        if name.endswith(_NOISE) and isinstance(value, float) and value > 0:
            _log.info("%s of the base model is %s, set to 0", name, value)
            setattr(config, name, 0.0)


@torch.no_grad()
def _check_output_layer(model: "PreTrainedModel", name: str) -> None:
    """Refuse models that change logits after the output layer, such as by soft-capping."""
    ids = torch.tensor([_PROBE_IDS], device=model.device)
    whole = model(input_ids=ids, use_cache=False).logits.float()
    ours = output_layer(model)(decode(model, input_ids=ids)).float()
    if not torch.allclose(whole, ours, rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"model {name!r} changes its logits after the output layer (soft-capping or scaling), "
            "which is not supported; use another model"
        )
