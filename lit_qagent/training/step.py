"""What one batch of pairs gives."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_qagent.data.batch import PairBatch
from lit_qagent.models.q_model import QModel
from lit_qagent.training.losses import LossSpec, PairLosses, pair_losses, regression_losses


class StepOutput(NamedTuple):
    """Q of the S = 2P actions of a batch, losses and margins of its P pairs."""

    q: Tensor
    pair_losses: PairLosses


def compute_step(model: QModel, batch: PairBatch, loss: LossSpec) -> StepOutput:
    """Return Q and losses of a batch.

    Every head that is trained adds its loss; Q and margins are those of the head that agents use.

    Args:
        model: The Q-model.
        batch: P pairs.
        loss: Which loss the pairs are trained with.
    """
    evidence = model.evidence(batch.tokens, batch.reference_log_probs)
    found = model.head.trained(evidence)  # the first is the one that agents use
    parts = [pair_losses(loss, q, batch.q_hat, beta=head.beta) for head, q in found.items()]
    losses = torch.stack([part.losses for part in parts]).sum(dim=0)
    for head, q in found.items():
        if head.regression:
            losses = losses + head.regression * regression_losses(q, batch.q_hat, batch.visits)
    return StepOutput(next(iter(found.values())), PairLosses(losses, parts[0].margins))
