"""Stops training where going on would spoil the weights, and says why."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lit_qagent.core.errors import TrainingFailure

_CPU_WORDS = "not enough memory"


def refuse_bad_losses(losses: Tensor, names: Sequence[str]) -> None:
    """Check the loss of each pair.

    Raises:
        TrainingFailure: One is infinite or no number.
    """
    good = torch.isfinite(losses.detach())
    if bool(good.all()):
        return
    bad = [name for name, fine in zip(names, good.tolist(), strict=True) if not fine]
    raise TrainingFailure(
        f"the loss of {len(bad)} of {len(names)} pairs is not finite: {'; '.join(bad[:5])}; no "
        "weight was changed by them. Lower the learning rate, use dtype float32, or look at these "
        "pairs; the last checkpoint is good"
    )


def refuse_bad_gradients(weights: Mapping[str, Tensor]) -> None:
    """Check the gradients before they change the weights.

    Raises:
        TrainingFailure: One is infinite or no number.
    """
    bad = [n for n, p in weights.items() if p.grad is not None and not p.grad.isfinite().all()]
    if bad:
        raise TrainingFailure(
            f"the gradients of {len(bad)} weights are not finite, such as {bad[0]!r}; no weight "
            "was changed by them. Lower the learning rate or use dtype float32; the last "
            "checkpoint is good"
        )


@contextmanager
def memory_advice() -> Iterator[None]:
    """Say what to lower where memory runs out.

    Raises:
        TrainingFailure: Instead of the allocator's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and _CPU_WORDS not in str(
            error
        ):
            raise
        raise TrainingFailure(
            "out of memory; lower data.max_tokens (tokens computed at once) or data.batch_size, "
            "set model.backbone.gradient_checkpointing, lower model.max_length, or use "
            "model.backbone.quantization nf4; trainer.accumulate_grad_batches keeps the size of a "
            f"step ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
