"""Log-probabilities of chosen tokens without all their logits in memory at once."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

CHUNK = 128  # scored tokens whose logits are in memory at once: 25 MB at 49k words


def token_log_probs(layer: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return float32 [A]: ``log_softmax(layer(hidden))[targets]``.

    With a frozen output layer the gradient with respect to the hidden states is made on the way
    (target's row minus expected row), so that no logits are computed twice.

    Args:
        layer: Hidden states to logits.
        hidden: [A, H].
        targets: int64 [A].
    """
    if not hidden.requires_grad:
        return torch.cat([_score(layer, *chunk) for chunk in _chunks(hidden, targets)])
    if type(layer) is nn.Linear and not layer.weight.requires_grad:
        found: Tensor = _FrozenLayer.apply(hidden, layer.weight, layer.bias, targets)  # type: ignore[no-untyped-call]
        return found
    # The logits are computed again in the backward pass rather than kept.
    return torch.cat(
        [
            checkpoint(_score, layer, *chunk, use_reentrant=False)
            for chunk in _chunks(hidden, targets)
        ]
    )


def _chunks(hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(hidden, CHUNK), torch.split(targets, CHUNK), strict=True)


def _score(layer: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = layer(hidden).float()
    picked: Tensor = logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)
    return picked


class _FrozenLayer(torch.autograd.Function):
    """Scores and their gradients in one pass over the vocabulary."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
    ) -> Tensor:
        scores, slopes = [], []
        for states, wanted in _chunks(hidden, targets):
            logits = linear(states, weight, bias).float()
            normaliser = logits.logsumexp(-1, keepdim=True)
            scores.append((logits.gather(-1, wanted[:, None]) - normaliser).squeeze(-1))
            shares = logits.sub_(normaliser).exp_().to(weight.dtype)
            slopes.append(weight[wanted] - shares @ weight)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(scores)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        [slopes] = ctx.saved_tensors
        return gradient[:, None].to(slopes.dtype) * slopes, None, None, None
