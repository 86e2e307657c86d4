"""Metrics over several batches against hand-counted values."""

import math

import pytest
import torch

from lit_qagent.data.batch import PairBatch, PairTokens, collate_pairs
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.training.losses import LossSpec, pair_losses
from lit_qagent.training.metrics import PreferenceMetrics, preference_accuracy


def batch_of(*labels: tuple[float, float]) -> PairBatch:
    sequence = TokenSequence([1], [2])
    return collate_pairs([PairTokens(sequence, sequence, *both, 0) for both in labels], "none")


def measure(metrics: PreferenceMetrics, batch: PairBatch, q: list[float]) -> None:
    values = torch.tensor(q)
    metrics.update(batch, values, pair_losses(LossSpec(), values, batch.q_hat))


def test_values_are_exact_over_batches_of_unequal_size() -> None:
    metrics = PreferenceMetrics()
    measure(metrics, batch_of((1.0, 0.0), (0.9, -1.0)), [0.4, 0.1, 0.2, 0.3])
    measure(metrics, batch_of((0.8, 0.5)), [0.35, 0.35])

    found = {name: float(metric.compute()) for name, metric in metrics.named("val").items()}

    assert found["val/accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["val/margin"] == pytest.approx((0.3 - 0.1 + 0.0) / 3)
    losses = [math.log1p(math.exp(-margin)) for margin in (0.3, -0.1, 0.0)]
    assert found["val/loss"] == pytest.approx(sum(losses) / 3, abs=1e-6)
    # Ranks of Q_hat (1, 0, .9, -1, .8, .5) are 6 2 5 1 4 3; of Q (.4, .1, .2, .3, .35, .35),
    # ties shared, 6 1 2 3 4.5 4.5. Means 3.5, deviation products add up to 9, squares to
    # 17.5 and 17.
    assert found["val/rank_correlation"] == pytest.approx(9 / math.sqrt(17.5 * 17), abs=1e-4)


def test_a_batch_of_another_process_adds_no_pair() -> None:
    metrics, once = PreferenceMetrics(), PreferenceMetrics()
    batch, q = batch_of((1.0, 0.0), (0.9, -1.0)), [0.4, 0.1, 0.2, 0.3]
    measure(once, batch, q)

    measure(metrics, batch, q)
    measure(metrics, batch_of((0.8, 0.5)).changed(is_repeat=True), [0.9, 0.1])

    expected = {name: metric.compute() for name, metric in once.named("val").items()}
    assert {name: metric.compute() for name, metric in metrics.named("val").items()} == expected
    assert torch.equal(metrics.table(), once.table())


def test_equal_values_count_half() -> None:
    assert preference_accuracy(torch.tensor([2.0, -2.0, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_an_untrained_model_is_at_chance_and_uncorrelated() -> None:
    metrics = PreferenceMetrics()
    measure(metrics, batch_of((1.0, 0.0), (1.0, -1.0)), [0.0] * 4)

    assert float(metrics.accuracy.compute()) == 0.5
    assert float(metrics.loss.compute()) == pytest.approx(math.log(2))
    assert float(metrics.rank_correlation.compute()) == 0.0
