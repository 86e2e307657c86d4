"""What is measured on held-out preference pairs."""

import warnings

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, SpearmanCorrCoef

from lit_qagent.data.batch import PairBatch
from lit_qagent.training.losses import PairLosses
from lit_qagent.training.pair_table import PairTable


def preference_accuracy(margins: Tensor) -> Tensor:
    """Return 1 where the chosen action has the higher Q, 0 where the lower, 0.5 where equal; [P].

    Examples:
        >>> preference_accuracy(torch.tensor([0.3, -0.1, 0.0])).tolist()
        [1.0, 0.0, 0.5]
    """
    return (margins > 0).float() + 0.5 * (margins == 0).float()


class PreferenceMetrics(nn.Module):
    """Loss, accuracy and margin over pairs; rank correlation of Q with ``Q_hat`` over actions.

    All are exact over the whole split and reduce over processes, each pair counted once. `details`
    has the accuracy by depth, difference and visits, and what Q depends on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = MeanMetric()
        self.accuracy = MeanMetric()
        self.margin = MeanMetric()
        with warnings.catch_warnings():
            # They warn that they keep all values: a few numbers per action here.
            warnings.simplefilter("ignore", UserWarning)
            self.rank_correlation = SpearmanCorrCoef()
            self._table = PairTable()

    def update(self, batch: PairBatch, q: Tensor, pair_losses: PairLosses) -> None:
        """Add a batch, or nothing of one that another process adds.

        Args:
            batch: The pairs.
            q: [S] Q of every action, chosen and rejected alternating.
            pair_losses: [P] losses and margins.
        """
        # No rows instead of no update: a process without rows could not gather those of others.
        num_pairs = 0 if batch.is_repeat else batch.num_pairs
        margins = pair_losses.margins[:num_pairs]
        self.loss.update(pair_losses.losses[:num_pairs])
        self.accuracy.update(preference_accuracy(margins))
        self.margin.update(margins)
        self.rank_correlation.update(q[: 2 * num_pairs], batch.q_hat[: 2 * num_pairs])
        self._table.update(batch, q)

    def named(self, prefix: str) -> dict[str, Metric]:
        """Return the metrics by the names they are logged under, such as ``val/accuracy``."""
        named = {name: m for name, m in self.named_children() if not name.startswith("_")}
        return {f"{prefix}/{name}": metric for name, metric in named.items()}  # type: ignore[misc]

    def table(self) -> Tensor:
        """Return the rows of every pair seen, of all processes; then forget them."""
        rows: Tensor = self._table.compute()
        self._table.reset()
        return rows
