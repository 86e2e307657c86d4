"""The step-level DPO loss against values derived by hand."""

import math

import pytest
import torch

from lit_qagent.training.losses import sigmoid_loss


def test_loss_by_hand() -> None:
    # Margins ln 3, 0 and -ln 3: sigmoid(ln 3) = 3 / (3 + 1) = 3/4, sigmoid(0) = 1/2,
    # sigmoid(-ln 3) = 1/4; the loss is -log of these.
    q_chosen = torch.tensor([math.log(3), 0.7, 0.0])
    q_rejected = torch.tensor([0.0, 0.7, math.log(3)])

    found = sigmoid_loss(q_chosen, q_rejected)

    assert found.margins.tolist() == pytest.approx([math.log(3), 0.0, -math.log(3)])
    assert found.losses.tolist() == pytest.approx(
        [math.log(4 / 3), math.log(2), math.log(4)], abs=1e-6
    )


def test_gradient_by_hand() -> None:
    # d loss / d Q(chosen) = -(1 - sigmoid(margin)) = -1/4 at margin ln 3, and its opposite.
    q_chosen = torch.tensor([math.log(3)], requires_grad=True)
    q_rejected = torch.tensor([0.0], requires_grad=True)

    torch.autograd.backward(sigmoid_loss(q_chosen, q_rejected).losses.sum())

    assert q_chosen.grad is not None
    assert q_rejected.grad is not None
    assert q_chosen.grad.item() == pytest.approx(-0.25)
    assert q_rejected.grad.item() == pytest.approx(0.25)


def test_far_margins_stay_finite() -> None:
    found = sigmoid_loss(torch.tensor([0.0, 500.0]), torch.tensor([500.0, 0.0]))

    assert found.losses.tolist() == [500.0, 0.0]
