"""Settings and checkpoints that do not go together, and what is said of those that hardly do."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_qagent.core.errors import CheckpointError, ConfigError
from lit_qagent.data.rendering import RenderingCounts
from lit_qagent.data.tokenizers import check_tokenizer
from lit_qagent.models.backbone import Backbone
from lit_qagent.models.q_heads import QHead
from lit_qagent.models.q_model import QModel
from lit_qagent.models.specs import BackboneSpec
from lit_qagent.policies.chat import ChatRenderer
from lit_qagent.training.lineage import splits_of

_log = logging.getLogger(__name__)


def check_reference(reference: str, *, is_adapted: bool) -> None:
    """Refuse a reference that the model does not have.

    Raises:
        ConfigError: ``live`` without an adapter, or ``copy`` with one.
    """
    if reference == "live" and not is_adapted:
        raise ConfigError(
            "model.reference live switches the adapter off, and with model.lora null there is "
            "none; set it to cached (computed once, before the first step), or to copy (a second "
            "copy of the model)"
        )
    if reference == "copy" and is_adapted:
        raise ConfigError(
            "model.reference copy is for model.lora null: with an adapter its switched-off model "
            "is the reference; set it to live, or to cached"
        )


def check_precision(precision: str) -> None:
    """Refuse a precision in which Lightning casts the whole model, rotary frequencies included.

    Raises:
        ConfigError: It is ``bf16-true`` or ``16-true``.
    """
    if precision in ("bf16-true", "16-true"):
        raise ConfigError(
            f"trainer.precision {precision} would round the positions of the tokens too; set it "
            "to bf16-mixed, or to 32-true with model.backbone.dtype bfloat16"
        )


def check_all_in_memory(*, streaming: bool) -> None:
    """Refuse a cached reference of pairs that are streamed.

    Raises:
        ConfigError: They are.
    """
    if streaming:
        raise ConfigError(
            "model.reference cached needs all training pairs at once, and data.streaming "
            "keeps none; set it to live (to copy with model.lora null)"
        )


def check_same_model(
    checkpoint: Mapping[str, Any], backbone: BackboneSpec, chat: ChatRenderer
) -> None:
    """Check what shapes do not tell: weights of one base model may fit another.

    Args:
        checkpoint: What a `.ckpt` holds.
        backbone: The base model now.
        chat: Its tokenizer.

    Raises:
        CheckpointError: It was trained on another base model or tokenizer.
    """
    saved = checkpoint.get("hyper_parameters", {}).get("backbone")
    trained = Path(BackboneSpec(**saved).public_name).name if saved else None
    if trained not in (None, Path(backbone.public_name).name):
        raise CheckpointError(
            f"the checkpoint was trained on {trained!r}, model.backbone.name is "
            f"{backbone.name!r}; set it to the former, or give another checkpoint"
        )
    check_tokenizer(chat, checkpoint.get("lineage", {}))


def check_weights(saved: Mapping[str, Tensor], trainable: Mapping[str, Tensor]) -> None:
    """Check that a `.ckpt` has exactly the weights that are trained.

    Raises:
        CheckpointError: One is missing, unexpected, or of another shape.
    """
    expected = {name: tuple(p.shape) for name, p in trainable.items()}
    found = {name: tuple(t.shape) for name, t in saved.items()}
    differing = sorted(expected.items() ^ found.items())
    if differing:
        raise CheckpointError(
            f"the checkpoint's weights do not fit the model: {len(differing)} differ, such as "
            f"{differing[0][0]!r}; use the backbone, lora and q_head it was trained with"
        )


def check_context(max_length: int, backbone: Backbone) -> None:
    """Refuse sequences that are longer than what the base model knows.

    Raises:
        ConfigError: They may be.
    """
    if backbone.context is not None and max_length > backbone.context:
        raise ConfigError(
            f"model.max_length is {max_length}, "
            f"{backbone.spec.name!r} knows {backbone.context} positions; lower it"
        )


def report_untrained(backbone: Backbone) -> None:
    """Say so if there is nothing that was trained."""
    if backbone.is_untrained:
        _log.warning(
            "the Q-model is untrained, so Q is 0 for every action; "
            "give model.checkpoint or --ckpt_path to play with a trained one"
        )


def report_other_split(now: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Say so if what is held out of the same pairs is not what training held out.

    Args:
        now: Lineage of the pairs that are measured.
        trained: That of the model.
    """
    same = [split for split in splits_of(trained) if split["pairs_hash"] == now["pairs_hash"]]
    differing = {
        f"{key} {split[key]} then, {now[key]} now"
        for split in same
        for key in split
        if split[key] != now[key]
    }
    if differing:
        _log.warning(
            "held-out pairs may have been trained on: of the same pairs others were held out in "
            "training (%s); give data.seed and the fractions as in training",
            "; ".join(sorted(differing)),
        )


def report_other_head(*, used: QHead, given: QHead, default: QHead) -> None:
    """Say so if the checkpoint overrules a head that was given; the default was not given."""
    described = {id(head): (head.kind, head.settings()) for head in (used, given, default)}
    if described[id(given)] not in (described[id(used)], described[id(default)]):
        _log.warning(
            "the checkpoint's Q-head %s is used, not the one given, %s",
            described[id(used)],
            described[id(given)],
        )


def report_rounding(q_model: QModel, reference: str) -> None:
    """Say so if bfloat16 would round away small steps, or the reference unlike the model."""
    backbone = q_model.backbone
    if backbone.spec.dtype != "bfloat16":
        return
    if not backbone.is_adapted:
        _log.warning(
            "all weights are trained in bfloat16, which rounds small steps away; set "
            "model.backbone.dtype to float32 and trainer.precision to bf16-mixed"
        )
    elif q_model.head.needs_reference and reference == "cached":
        _log.warning(
            "model.reference cached with a bfloat16 backbone: the reference is rounded in other "
            "batches than the model is, which is noise in Q; set model.reference to live"
        )


def report_shortened(counts: RenderingCounts, max_length: int) -> None:
    """Say so if the Q-model did not see all of the histories that it scored."""
    if counts.shortened:
        _log.warning(
            "the Q-model scored %d of %d histories without their oldest steps (%d steps), as "
            "model.max_length is %d; train with a longer one, or take shorter episodes",
            counts.shortened,
            counts.rendered,
            counts.dropped_steps,
            max_length,
        )
