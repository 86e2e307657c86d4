"""Losses of preference pairs as pure functions of Q values."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid


class PairLosses(NamedTuple):
    """A loss and a margin per pair.

    Attributes:
        losses: [P].
        margins: [P]; Q of the chosen action minus Q of the rejected one.
    """

    losses: Tensor
    margins: Tensor


def sigmoid_loss(q_chosen: Tensor, q_rejected: Tensor) -> PairLosses:
    """Step-level DPO: ``-log sigmoid(Q(u, tau, a_w) - Q(u, tau, a_l))``.

    With the implicit Q (``beta`` times a log-ratio summed over the action's tokens) this is the
    step-level DPO loss of Zhai et al. (AAAI 2025).

    Args:
        q_chosen: [P].
        q_rejected: [P].

    Examples:
        >>> import torch
        >>> round(sigmoid_loss(torch.tensor([0.0]), torch.tensor([0.0])).losses.item(), 4)
        0.6931
    """
    margins = q_chosen - q_rejected
    return PairLosses(losses=-logsigmoid(margins), margins=margins)
