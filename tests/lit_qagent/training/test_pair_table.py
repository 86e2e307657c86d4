"""What is read off held-out pairs, counted by hand on four of them."""

import pytest
import torch

from lit_qagent.data.batch import PairTokens, collate_pairs
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.training.pair_table import (
    PairTable,
    calibration,
    columns,
    details,
    reliability_plot,
    sibling_tau,
)


def pair(
    q_hat: tuple[float, float],
    *,
    depth: int = 0,
    history: int = 0,
    actions: tuple[int, int] = (1, 2),
    visits: tuple[int, int] = (1, 1),
    lengths: tuple[int, int] = (1, 1),
) -> PairTokens:
    sides = [
        TokenSequence([1, history], [action] * length)
        for action, length in zip(actions, lengths, strict=True)
    ]
    return PairTokens(sides[0], sides[1], *q_hat, depth, visits=visits)


def rows_of(pairs: list[PairTokens], q: list[float]) -> torch.Tensor:
    table = PairTable()
    for first in range(0, len(pairs), 2):  # in several batches
        batch = collate_pairs(pairs[first : first + 2], "none")
        table.update(batch, torch.tensor(q[2 * first : 2 * first + 4]))
    return table.compute()


PAIRS = [
    pair((1.0, 0.0), depth=0, history=1, visits=(9, 8), lengths=(2, 1)),
    pair((0.5, 0.2), depth=0, history=2, visits=(7, 6), lengths=(2, 1)),
    pair((0.9, 0.8), depth=2, history=3, visits=(5, 1), lengths=(2, 1)),
]
# Right, wrong, and equal.
Q = [0.8, 0.1, 0.3, 0.4, 0.6, 0.6]


def test_accuracy_by_depth_margin_and_visits() -> None:
    found = details(rows_of(PAIRS, Q))

    assert found["accuracy_by_depth/00"] == 0.5
    assert found["accuracy_by_depth/02"] == 0.5
    # Differences of Q_hat 1, 0.3, 0.1 and least visits 8, 6, 1, so thirds of one pair each.
    by_margin = [found[f"accuracy_by_margin/{part}"] for part in ("low", "middle", "high")]
    by_visits = [found[f"accuracy_by_visits/{part}"] for part in ("low", "middle", "high")]
    assert by_margin == by_visits == [0.5, 0.0, 1.0]


def test_tau_is_averaged_over_sets_of_siblings() -> None:
    # Three siblings after history 1: Q_hat 1, 0, 0.5 (the first in two pairs, its Q rounded in two
    # ways) with Q 3, 1, 0: couples 1-0 right, 1-0.5 right, 0.5-0 wrong: (2 - 1) / 3. Another set is
    # right: 1. A set without a difference does not count. Mean (1/3 + 1) / 2.
    pairs = [
        pair((1.0, 0.0), history=1, actions=(1, 2)),
        pair((1.0, 0.5), history=1, actions=(1, 3)),
        pair((0.4, 0.3), history=3, depth=1),
        pair((0.2, 0.2), history=2),
    ]
    rows = rows_of(pairs, [3.0, 1.0, 3.000001, 0.0, 5.0, 4.0, 1.0, 2.0])

    assert sibling_tau(columns(rows)) == pytest.approx((1 / 3 + 1) / 2)
    found = details(rows)
    assert found["kendall_tau_by_depth/00"] == pytest.approx(1 / 3)
    assert found["kendall_tau_by_depth/01"] == 1.0


def test_actions_after_different_histories_are_no_siblings() -> None:
    # Compared with each other, the better action of the worse history would look wrong.
    pairs = [pair((1.0, 0.9), history=1), pair((0.2, 0.1), history=2)]

    assert sibling_tau(columns(rows_of(pairs, [0.2, 0.1, 1.0, 0.9]))) == 1.0


def test_calibration_compares_the_means_of_bins() -> None:
    # 6 actions in at most 10 bins are one each: sorted Q 0.1 0.3 0.4 0.6 0.6 0.8 with Q_hat
    # 0 0.5 0.2 0.9 0.8 1: distances 0.1 0.2 0.2 0.3 0.2 0.2.
    found = calibration(columns(rows_of(PAIRS, Q)))

    assert sorted(found.q) == pytest.approx([0.1, 0.3, 0.4, 0.6, 0.6, 0.8])
    assert found.error == pytest.approx(1.2 / 6)


def test_a_bin_is_weighted_by_visits() -> None:
    # 20 actions in bins of two: each pair's chosen (1.0, 3 visits) and rejected one (0, 1 visit).
    q = [value for i in range(10) for value in (i + 0.1, float(i))]
    rows = rows_of([pair((1.0, 0.0), visits=(3, 1))] * 10, q)

    assert calibration(columns(rows)).q_hat == [0.75] * 10


def test_length_correlation() -> None:
    # Chosen actions have 2 tokens, rejected 1: Q equal to the length is fully correlated.
    assert details(rows_of(PAIRS, [2.0, 1.0] * 3))["length_correlation"] == pytest.approx(1.0)
    assert details(rows_of(PAIRS, [0.0] * 6))["length_correlation"] == 0.0


def test_no_pairs_have_no_details() -> None:
    assert details(rows_of(PAIRS, Q)[:0]) == {}


def test_the_plot_shows_every_set_with_its_error() -> None:
    rows = rows_of(PAIRS, Q)

    figure = reliability_plot({"val": rows, "ood": rows, "none": rows[:0]})

    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["val: error 0.200", "ood: error 0.200"]
