"""Losses of preference pairs as pure functions of Q values.

With the implicit Q (``beta`` times a log-ratio summed over the action's tokens) the margin below is
``beta`` times the difference of log-ratios that the papers write.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_qagent.core.errors import ConfigError

LossName = Literal["sigmoid", "ipo", "hinge", "robust", "offset"]


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """Which loss the margins of pairs are trained with.

    Attributes:
        name: ``sigmoid`` is the paper's; ``ipo`` aims at a fixed margin, ``hinge`` at one of at
            least 1, ``robust`` expects some pairs the wrong way round, ``offset`` asks for more
            margin where ``Q_hat`` differs more.
        flipped: For ``robust``: share of pairs expected the wrong way round, in [0, 0.5).
        offset: For ``offset``: margin asked for per unit of ``Q_hat`` difference, >= 0.
    """

    name: LossName = "sigmoid"
    flipped: float = 0.1
    offset: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in ("sigmoid", "ipo", "hinge", "robust", "offset"):
            raise ConfigError(
                f"loss.name must be sigmoid, ipo, hinge, robust or offset, got {self.name!r}"
            )
        if not 0 <= self.flipped < 0.5:
            raise ConfigError(f"loss.flipped must be in [0, 0.5), got {self.flipped}")
        if self.offset < 0:
            raise ConfigError(f"loss.offset must be >= 0, got {self.offset}")


class PairLosses(NamedTuple):
    """A loss and a margin per pair.

    Attributes:
        losses: [P].
        margins: [P]; Q of the chosen action minus Q of the rejected one.
    """

    losses: Tensor
    margins: Tensor


def pair_losses(spec: LossSpec, q: Tensor, q_hat: Tensor, *, beta: float = 1.0) -> PairLosses:
    """Return the losses of pairs.

    Args:
        spec: Which loss.
        q: [S] Q of chosen and rejected actions, alternating.
        q_hat: [S] their Monte-Carlo values.
        beta: Scale of the Q-head, which ``ipo`` divides by.

    Examples:
        >>> pair_losses(LossSpec(name="hinge"), torch.tensor([0.5, 0.0]), torch.zeros(2)).losses
        tensor([0.5000])
    """
    margins = q[::2] - q[1::2]
    if spec.name == "ipo":
        losses = ipo_losses(margins, beta)
    elif spec.name == "hinge":
        losses = hinge_losses(margins)
    elif spec.name == "robust":
        losses = robust_losses(margins, spec.flipped)
    elif spec.name == "offset":
        losses = sigmoid_losses(margins - spec.offset * (q_hat[::2] - q_hat[1::2]))
    else:
        losses = sigmoid_losses(margins)
    return PairLosses(losses=losses, margins=margins)


def sigmoid_losses(margins: Tensor) -> Tensor:
    """Step-level DPO, Zhai et al. (AAAI 2025): ``-log sigmoid(margin)``.

    With an offset subtracted from the margin it is DPO with an offset, Amini et al. (2024).

    Examples:
        >>> round(sigmoid_losses(torch.tensor([0.0])).item(), 4)
        0.6931
    """
    return -logsigmoid(margins)


def ipo_losses(margins: Tensor, beta: float) -> Tensor:
    """IPO, Azar et al. (2023), with tau = beta: ``(margin / beta - 1 / (2 beta)) ** 2``."""
    return ((margins - 0.5) / beta).square()


def hinge_losses(margins: Tensor) -> Tensor:
    """SLiC-HF's rank loss on log-ratios, Zhao et al. (2023), Liu et al. (2024): the rest to 1."""
    return torch.relu(1 - margins)


def robust_losses(margins: Tensor, flipped: float) -> Tensor:
    """Robust DPO, Chowdhury et al. (2024): unbiased if a share of the labels is flipped."""
    right, wrong = sigmoid_losses(margins), sigmoid_losses(-margins)
    return ((1 - flipped) * right - flipped * wrong) / (1 - 2 * flipped)


def regression_losses(q: Tensor, q_hat: Tensor, visits: Tensor) -> Tensor:
    """Return [P]: squared errors of Q against ``Q_hat``, each action once per visit.

    The mean of n returns has a variance of 1/n of theirs, so its weight is n.

    Args:
        q: [S] Q of chosen and rejected actions, alternating.
        q_hat: [S] their Monte-Carlo values.
        visits: [S] visits behind these.
    """
    return (visits * (q - q_hat).square()).view(-1, 2).sum(dim=1)
