"""The losses against values derived by hand; ln 3 is handy, as sigmoid(ln 3) = 3/4."""

import math

import pytest
import torch

from lit_qagent.core.errors import ConfigError
from lit_qagent.training.losses import LossSpec, pair_losses, regression_losses

# Q of chosen and rejected, alternating: margins ln 3, 0 and -ln 3.
Q = torch.tensor([math.log(3), 0.0, 0.7, 0.7, 0.0, math.log(3)])
Q_HAT = torch.tensor([1.0, 0.0, 0.5, 0.0, 0.0, 0.0])


def losses(beta: float = 1.0, **spec: object) -> list[float]:
    found = pair_losses(LossSpec(**spec), Q, Q_HAT, beta=beta)  # type: ignore[arg-type]
    assert found.margins.tolist() == pytest.approx([math.log(3), 0.0, -math.log(3)])
    values: list[float] = found.losses.tolist()
    return values


def test_sigmoid_by_hand() -> None:
    # -log of sigmoid(ln 3) = 3/4, sigmoid(0) = 1/2, sigmoid(-ln 3) = 1/4.
    assert losses() == pytest.approx([math.log(4 / 3), math.log(2), math.log(4)], abs=1e-6)


def test_ipo_by_hand() -> None:
    # ln 3 = 1.098612; (1.098612 - 0.5)^2 = 0.358337, 0.25, (-1.598612)^2 = 2.555561.
    assert losses(name="ipo") == pytest.approx([0.358337, 0.25, 2.555561], abs=1e-5)
    # beta 0.1 divides the distance by 0.1, its square by 0.01.
    assert losses(name="ipo", beta=0.1) == pytest.approx([35.8337, 25.0, 255.5561], rel=1e-5)


def test_hinge_by_hand() -> None:
    # 1 - 1.098612 is below 0; 1 - 0; 1 + 1.098612.
    assert losses(name="hinge") == pytest.approx([0.0, 1.0, 2.098612], abs=1e-6)


def test_robust_by_hand() -> None:
    # With 1/4 flipped: (3/4 right - 1/4 wrong) / (1/2) = 1.5 right - 0.5 wrong, where right and
    # wrong are log(4/3) = 0.287682 and log 4 = 1.386294, equal at log 2, then changed over.
    expected = [-0.261624, 0.693147, 1.935600]
    assert losses(name="robust", flipped=0.25) == pytest.approx(expected, abs=1e-5)
    assert losses(name="robust", flipped=0.0) == pytest.approx(losses())


def test_offset_by_hand() -> None:
    # Q_hat differs by 1, 1/2, 0; at ln 3 per unit the margins left are 0, -ln(3)/2, -ln 3.
    # sigmoid(-ln(3)/2) = 1 / (1 + sqrt 3), so the loss is log(1 + sqrt 3).
    expected = [math.log(2), math.log(1 + math.sqrt(3)), math.log(4)]
    assert losses(name="offset", offset=math.log(3)) == pytest.approx(expected, abs=1e-6)


def test_gradient_by_hand() -> None:
    # d loss / d Q(chosen) = -(1 - sigmoid(margin)) = -1/4 at margin ln 3, and its opposite.
    q = torch.tensor([math.log(3), 0.0], requires_grad=True)

    torch.autograd.backward(pair_losses(LossSpec(), q, torch.zeros(2)).losses.sum())

    assert q.grad is not None
    assert q.grad.tolist() == pytest.approx([-0.25, 0.25])


def test_far_margins_stay_finite() -> None:
    far = torch.tensor([0.0, 500.0, 500.0, 0.0])

    assert pair_losses(LossSpec(), far, torch.zeros(4)).losses.tolist() == [500.0, 0.0]


def test_regression_counts_an_error_once_per_visit() -> None:
    # 4 * (1 - 0.5)^2 + 1 * (0 - 1)^2 = 2; 3 * 0 + 2 * 0.5^2 = 0.5.
    q = torch.tensor([1.0, 0.0, 0.2, -0.5])
    q_hat = torch.tensor([0.5, 1.0, 0.2, 0.0])

    found = regression_losses(q, q_hat, torch.tensor([4.0, 1.0, 3.0, 2.0]))

    assert found.tolist() == pytest.approx([2.0, 0.5])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "kto"}, "must be sigmoid, ipo, hinge, robust or offset, got 'kto'"),
        ({"flipped": 0.5}, r"flipped must be in \[0, 0.5\), got 0.5"),
        ({"offset": -1.0}, "offset must be >= 0, got -1.0"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossSpec(**values)  # type: ignore[arg-type]
