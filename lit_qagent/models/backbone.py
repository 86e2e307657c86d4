"""The LoRA-adapted LLM: adapter on is the policy, adapter off the reference, one copy of weights.

Or the whole LLM, all of its weights trained; its reference is then a second copy, or none is held.

The only module that knows peft; it is imported when a model is built.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from lit_qagent.core.errors import CheckpointError, ConfigError, ModelError
from lit_qagent.models.attention import BRANCH_ATTENTION, Rows
from lit_qagent.models.base_model import attention_of, decode, load_base_model, output_layer
from lit_qagent.models.cached_attention import Group, cached_arguments
from lit_qagent.models.fingerprint import hash_of_base
from lit_qagent.models.full_weights import load_weights
from lit_qagent.models.sharing import Way, decodes_groups, find_way, longest_shared
from lit_qagent.models.specs import BackboneSpec, LoraSpec

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """An LLM with one LoRA adapter, or a whole one.

    Args:
        model: The adapted model; or the model itself, to train all of its weights.
        spec: What it was made from.

    Attributes:
        is_adapted: Whether there is an adapter.
        original: Of a whole model: the frozen copy that is its reference, if one is held.
        base_weights: Of a whole model: `hash_of_base` of the weights before training.
    """

    def __init__(self, model: "PeftModel | PreTrainedModel", spec: BackboneSpec) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self.is_adapted = hasattr(model, "disable_adapter")
        self.original: PreTrainedModel | None = None
        self.base_weights: str | None = None
        self._shows_original = False
        self.train()
        self._adapter = [p for name, p in model.named_parameters() if "lora_" in name]
        self._ways: dict[str, Way | None] = {}
        self._keeps: bool | None = None

    @property
    def language_model(self) -> "PreTrainedModel":
        """The causal language model with the adapter's layers in it."""
        if self._shows_original and self.original is not None:
            return self.original
        found: Any = self.model
        return found.get_base_model() if self.is_adapted else found  # type: ignore[no-any-return]

    @property
    def attention(self) -> str:
        """What the model attends with; where ours cannot be put in, not what was asked for."""
        return attention_of(self.language_model)

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
        """Return whether sequences of up to ``length`` tokens may share a row."""
        return length <= self.longest_shared

    @property
    def longest_shared(self) -> int:
        """Most tokens of a sequence that may share a row; 0 if the model cannot share.

        What the configuration does not say is tried out: recurrent layers, positions that are
        counted and not given, attention that ignores who sees whom.
        """
        longest = longest_shared(self.language_model.config.get_text_config())
        if self.spec.attention == "flash_attention_2" or not longest or self.way is None:
            return 0
        return longest

    @property
    def way(self) -> Way | None:
        """How sequences that share a row are kept apart; None if the model cannot."""
        kind = self.language_model.device.type
        if kind not in self._ways:
            self._ways[kind] = find_way(self)
        return self._ways[kind]

    @property
    def keeps_histories(self) -> bool:
        """Whether keys and values of histories can be kept, for `decode_groups`."""
        if self._keeps is None:
            self._keeps = self.attention == BRANCH_ATTENTION and decodes_groups(self)
        return self._keeps

    @property
    def is_untrained(self) -> bool:
        """True if the adapter changes nothing, as before training.

        A whole model says so only while it holds the original.
        """
        if not self.is_adapted:
            return self.original is not None and all(
                map(torch.equal, self.model.parameters(), self.original.parameters())
            )
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
        if mask is not None and mask.dim() == 4 and self.attention == "eager":
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

    def freeze_output_layer(self) -> None:
        """Train a whole model without its output layer, unless the embeddings are its weights."""
        embeddings: Any = self.language_model.get_input_embeddings()
        if self.output_layer.weight is not embeddings.weight:
            self.output_layer.requires_grad_(False)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Switch the adapter off, or to the original: the model is the one before training.

        Raises:
            ConfigError: A whole model, and its original is not held.
        """
        if not self.is_adapted:
            if self.original is None:
                raise ConfigError(
                    "all weights are trained and no copy of those before training is held; "
                    "set model.reference to copy, or to cached for the pairs of data.pairs"
                )
            self._shows_original = True
            try:
                yield
            finally:
                self._shows_original = False
            return
        trainable = [p.requires_grad for p in self._adapter]
        try:
            with self.model.disable_adapter():  # type: ignore[operator]
                yield
        finally:
            # peft makes the adapter trainable on the way out, also one that was frozen.
            for parameter, flag in zip(self._adapter, trainable, strict=True):
                parameter.requires_grad_(flag)

    def keep_original(self) -> None:
        """Hold a frozen copy of the weights as they are now, as the reference."""
        self.original = copy.deepcopy(self.language_model).requires_grad_(False)

    @contextmanager
    def borrowed_original(self) -> Iterator[None]:
        """Hold the base model's weights for a while, if a whole model has no original of its own.

        Raises:
            ModelError: The base model cannot be read.
        """
        if self.is_adapted or self.original is not None:
            yield
            return
        device = self.language_model.device
        self.original = load_base_model(self.spec).requires_grad_(False).to(device)  # type: ignore[arg-type]
        try:
            yield
        finally:
            self.original = None

    def save_adapter(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write the adapter as safetensors, with the base model's public name.

        Args:
            folder: Where to write.
            weights: The adapter's weights by their names in the model; None takes those in it.
        """
        config: Any = self.model.peft_config["default"]
        config.base_model_name_or_path = self.spec.public_name
        config.revision = self.spec.revision
        # "auto" would ask the model hub about the base model.
        self.model.save_pretrained(str(folder), state_dict=weights, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)


def build_backbone(spec: BackboneSpec, lora: LoraSpec | None) -> Backbone:
    """Load an LLM and put a fresh adapter on it, which changes nothing until it is trained.

    Args:
        spec: Which LLM.
        lora: The adapter; None trains all weights of the LLM.

    Raises:
        ConfigError: All weights of a quantised model shall be trained.
        ModelError: The model cannot be found, read, or used.
        MissingPackage: bitsandbytes is needed and not installed.
    """
    from peft import LoraConfig, get_peft_model

    if lora is None:
        return _whole_model(spec)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    model = load_base_model(spec)
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

    model = load_base_model(spec)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error, see below
            adapted = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        _check_complete(adapted, adapter)
        return Backbone(adapted, spec)
    except (SafetensorError, RuntimeError, ValueError, OSError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]  # torch names every tensor that does not fit
        raise CheckpointError(
            f"the adapter in {str(adapter)!r} cannot be put on {spec.name!r} ({reason}); give the "
            "base model it was trained on, or export the checkpoint again"
        ) from error


def _check_complete(model: "PeftModel", adapter: Path) -> None:
    """Refuse an adapter without all of its tensors: peft would fill the gaps, with a warning.

    Raises:
        CheckpointError: Some are missing, or there are others.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        found = set(file.keys())
    # The question whether embeddings were trained would be asked of the hub; they never are.
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    differing = sorted(found ^ set(expected))
    if differing:
        raise CheckpointError(
            f"the adapter in {str(adapter)!r} does not fit its own adapter_config.json: "
            f"{len(differing)} tensors are missing or too many, such as {differing[0]!r}; export "
            "the checkpoint again"
        )


def load_whole_model(
    spec: BackboneSpec, folder: Path, *, trainable: bool, with_original: bool
) -> Backbone:
    """Load an LLM all of whose weights were trained.

    Args:
        spec: The base model.
        folder: Where the trained weights are.
        trainable: Go on training them.
        with_original: Hold the base model too, as the reference.

    Raises:
        CheckpointError: The weights are damaged or of another architecture.
        ModelError: The base model cannot be found, read, or used.
    """
    backbone = _whole_model(spec)
    if with_original:
        backbone.keep_original()
    load_weights(backbone.language_model, folder, spec.name)
    backbone.model.requires_grad_(trainable)
    return backbone


def _whole_model(spec: BackboneSpec) -> Backbone:
    if spec.quantization != "none":
        raise ConfigError(
            f"model.lora null trains all weights, which backbone.quantization "
            f"{spec.quantization!r} does not allow; set it to none, or train an adapter"
        )
    backbone = Backbone(load_base_model(spec), spec)
    backbone.base_weights = hash_of_base(backbone.language_model)  # training changes them
    return backbone
