"""Stops training where going on would spoil the weights, and says why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_qagent.core.errors import TrainingFailure
from lit_qagent.training.sharding import local

# Of torch's allocator of main memory, which raises a plain RuntimeError: Windows, then elsewhere.
_CPU_WORDS = ("not enough memory", "can't allocate memory")
Place = Literal["batch", "step", "held_out", "reference"]
_TOKENS = "lower data.max_tokens (tokens computed at once) or data.batch_size"
_ADVICE: dict[Place, str] = {
    "batch": f"in a training batch; {_TOKENS}, set model.backbone.gradient_checkpointing, lower "
    "model.max_length, or use model.backbone.quantization nf4; trainer.accumulate_grad_batches "
    "keeps the size of a step",
    "step": "in the optimizer's step; train an adapter (model.lora) or lower its rank, take a "
    "model.optimizer that keeps less beside the weights, divide them by "
    f"configs/strategy_fsdp2.yaml, or {_TOKENS}",
    "held_out": f"on held-out pairs; {_TOKENS}, lower model.max_length, or use "
    "model.backbone.quantization nf4",
    "reference": "in the pass of the reference before the first step; lower data.max_tokens "
    "(tokens computed at once) or model.max_length, set model.reference to live (to copy with "
    "model.lora null), or use model.backbone.quantization nf4",
}


def refuse_bad_losses(
    losses: Tensor, names: Sequence[str], *, agree: Callable[[bool], bool] = bool
) -> None:
    """Check the loss of each pair.

    Args:
        losses: [P].
        names: Of the P pairs.
        agree: Tells whether a thing is so in all processes. They stop together: one that went on
            would wait for the gradients of one that has stopped.

    Raises:
        TrainingFailure: One is infinite or no number, here or in another process.
    """
    good = torch.isfinite(losses.detach())
    is_good = bool(good.all())
    if agree(is_good):
        return
    if is_good:
        raise TrainingFailure(
            "the loss of pairs in another process is not finite; it names them, and no weight was "
            "changed by them"
        )
    bad = [name for name, fine in zip(names, good.tolist(), strict=True) if not fine]
    raise TrainingFailure(
        f"the loss of {len(bad)} of {len(names)} pairs is not finite: {'; '.join(bad[:5])}; no "
        "weight was changed by them. Lower the learning rate, use dtype float32, or look at these "
        "pairs, and go on from the last checkpoint: none was saved now"
    )


def refuse_bad_gradients(
    weights: Mapping[str, Tensor],
    *,
    skips_bad: bool = False,
    agree: Callable[[bool], bool] = bool,
) -> None:
    """Check the gradients before they change the weights.

    Args:
        weights: Those that are trained.
        skips_bad: A gradient scaler (``16-mixed``) leaves such a step out and scales less: that is
            how it finds its scale.
        agree: Tells whether a thing is so in all processes: of weights in shards each has a part.

    Raises:
        TrainingFailure: One is infinite or no number, here or in another process.
    """
    if skips_bad:
        return
    found = {name: local(p.grad) for name, p in weights.items() if p.grad is not None}
    bad = [name for name, gradient in found.items() if not gradient.isfinite().all()]
    if agree(not bad):
        return
    what = f"of {len(bad)} weights" if bad else "in the shards of another process"
    example = f", such as {bad[0]!r}" if bad else ""
    raise TrainingFailure(
        f"the gradients {what} are not finite{example}; no weight was changed by them. Lower the "
        "learning rate or use dtype float32, and go on from the last checkpoint: none was saved now"
    )


@contextmanager
def unsaved(trainer: pl.Trainer | None) -> Iterator[None]:
    """Let a failure inside leave the last checkpoint as it is.

    The step before may have broken the weights, with gradients that were finite, so they shall not
    go over those of an earlier moment.

    Args:
        trainer: Whose callbacks save on an exception; None has none.
    """
    try:
        yield
    except TrainingFailure:
        for callback in trainer.checkpoint_callbacks if trainer else ():
            if isinstance(callback, ModelCheckpoint):
                callback.save_on_exception = False
        raise


@contextmanager
def memory_advice(where: Place = "batch") -> Iterator[None]:
    """Say what to lower where memory runs out.

    Raises:
        TrainingFailure: Instead of the allocator's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingFailure(f"out of memory {_ADVICE[where]} ({reason})") from error


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _CPU_WORDS)
