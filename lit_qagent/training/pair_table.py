"""One row per held-out pair, and what is read off: where Q is right and what it follows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_qagent.data.batch import PairBatch

_COLUMNS = 12
_NUM_BINS = 10


class Columns(NamedTuple):
    """Columns of a table; [P] for pairs, [S] = [2P] (chosen and rejected alternating) for actions.

    Attributes:
        q: [S] values of the model.
        q_hat: [S] Monte-Carlo values.
        visits: [S] visits behind these.
        num_tokens: [S] tokens of the action.
        depth: [P].
        history: [P] number of the history that both actions follow.
        action: [S] number of the action.
    """

    q: Tensor
    q_hat: Tensor
    visits: Tensor
    num_tokens: Tensor
    depth: Tensor
    history: Tensor
    action: Tensor


class PairTable(Metric):
    """Keeps a row per pair; gathers them from all processes."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, batch: PairBatch, q: Tensor) -> None:
        """Add the pairs of a batch and the [S] Q of their actions."""
        lengths = batch.tokens.num_action_tokens
        of_actions = (q, batch.q_hat, batch.visits, lengths, batch.action)
        sides = [part.double().view(-1, 2) for part in of_actions]
        pairs = [part.double()[:, None] for part in (batch.depth, batch.history)]
        rows = torch.cat([*sides, *pairs], dim=1).detach()
        self.rows.append(rows[:0] if batch.is_repeat else rows)  # type: ignore[operator, union-attr]

    def compute(self) -> Tensor:
        """Return float64 [P, columns]."""
        # After a gather over processes it is one tensor.
        if isinstance(self.rows, list) and not self.rows:
            return torch.zeros(0, _COLUMNS, dtype=torch.float64)
        found: Tensor = dim_zero_cat(self.rows).cpu()  # type: ignore[arg-type]
        return found


def columns(rows: Tensor) -> Columns:
    """Take a table apart."""
    q, q_hat, visits, num_tokens, action = (rows[:, i : i + 2].reshape(-1) for i in range(0, 10, 2))
    return Columns(
        q, q_hat, visits, num_tokens, action=action, depth=rows[:, 10], history=rows[:, 11]
    )


def details(rows: Tensor) -> dict[str, float]:
    """Return what a table says, by name.

    Accuracy by depth; by thirds of the pairs by difference of ``Q_hat`` and by visits of the less
    visited action; Kendall's tau among siblings, also by depth; calibration; correlation of Q with
    length.
    """
    if not len(rows):
        return {}
    table = columns(rows)
    q, q_hat, visits = (part.view(-1, 2) for part in (table.q, table.q_hat, table.visits))
    right = (q[:, 0] > q[:, 1]).double() + 0.5 * (q[:, 0] == q[:, 1]).double()
    found = {
        f"accuracy_by_depth/{int(depth):02d}": float(right[table.depth == depth].mean())
        for depth in torch.unique(table.depth)
    }
    found |= _by_thirds("accuracy_by_margin", q_hat[:, 0] - q_hat[:, 1], right)
    found |= _by_thirds("accuracy_by_visits", visits.amin(dim=1), right)
    taus = sibling_taus(table)
    found["kendall_tau"] = _mean([tau for some in taus.values() for tau in some])
    found |= {f"kendall_tau_by_depth/{int(at):02d}": _mean(some) for at, some in taus.items()}
    found["calibration_error"] = calibration(table).error
    found["length_correlation"] = _correlation(table.q, table.num_tokens)
    return found


def sibling_tau(table: Columns) -> float:
    """Return Kendall's tau of Q against ``Q_hat``, averaged over sets of siblings; 0 without any.

    Siblings are the actions that follow one history, each counted once.
    """
    return _mean([tau for some in sibling_taus(table).values() for tau in some])


def sibling_taus(table: Columns) -> dict[float, list[float]]:
    """Return depth -> tau of each set of siblings there, see `rank_agreement`; in order of depth.

    Sets in which no two ``Q_hat`` differ do not count.
    """
    places = [part.repeat_interleave(2) for part in (table.depth, table.history)]
    found = torch.stack([*places, table.action, table.q, table.q_hat], dim=1).tolist()
    sets: dict[tuple[float, float], dict[float, tuple[float, float]]] = {}
    for depth, history, action, q, q_hat in found:
        # Its Q in another batch is the same but for rounding.
        sets.setdefault((depth, history), {}).setdefault(action, (q, q_hat))
    taus: dict[float, list[float]] = {}
    for depth, history in sorted(sets):
        tau = rank_agreement(list(sets[depth, history].values()))
        if tau is not None:
            taus.setdefault(depth, []).append(tau)
    return taus


def rank_agreement(actions: Sequence[tuple[float, float]]) -> float | None:
    """Return Kendall's tau of siblings, each its Q and its ``Q_hat``; None if no two differ.

    Concordant less discordant couples over all whose ``Q_hat`` differ; equal Q count as neither.

    Examples:
        >>> rank_agreement([(0.1, 0.0), (0.3, 0.5), (0.2, 1.0)])
        0.3333333333333333
    """
    values = torch.tensor(actions, dtype=torch.float64)
    q_sign, hat_sign = ((v[:, None] - v[None, :]).sign() for v in values.unbind(dim=1))
    if not hat_sign.any():
        return None
    return float((q_sign * hat_sign).sum() / hat_sign.abs().sum())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class Calibration(NamedTuple):
    """Q against the Monte-Carlo return, in bins of equally many actions by Q.

    Attributes:
        q: Mean Q of each bin.
        q_hat: Mean ``Q_hat`` of each bin, weighted by visits.
        error: Mean distance of the two, weighted by actions.
    """

    q: list[float]
    q_hat: list[float]
    error: float


def calibration(table: Columns) -> Calibration:
    """Sort the actions by Q and compare the means of each bin."""
    order = table.q.argsort()
    bins = [part for part in torch.tensor_split(order, _NUM_BINS) if len(part)]
    q = [float(table.q[part].mean()) for part in bins]
    q_hat = [_weighted_mean(table.q_hat[part], table.visits[part]) for part in bins]
    gaps = [len(part) * abs(a - b) for part, a, b in zip(bins, q, q_hat, strict=True)]
    return Calibration(q=q, q_hat=q_hat, error=sum(gaps) / len(order))


def reliability_plot(tables: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 (a matplotlib figure)
    """Draw Q against the Monte-Carlo return for one or more tables."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for name, rows in tables.items():
        if len(rows):
            found = calibration(columns(rows))
            axes.plot(found.q, found.q_hat, "o-", label=f"{name}: error {found.error:.3f}")
    axes.axline((0, 0), slope=1, color="grey", linewidth=1)
    axes.set(xlabel="Q (mean of bin)", ylabel="Monte-Carlo return (mean of bin)")
    axes.legend()
    return figure


def _by_thirds(name: str, key: Tensor, right: Tensor) -> dict[str, float]:
    """Return the accuracy of the pairs with the lowest, middle and highest keys."""
    thirds = torch.tensor_split(key.argsort(stable=True), 3)
    parts = zip(("low", "middle", "high"), thirds, strict=True)
    return {f"{name}/{part}": float(right[rows].mean()) for part, rows in parts if len(rows)}


def _weighted_mean(values: Tensor, weights: Tensor) -> float:
    total = weights.sum()
    return float((values * weights).sum() / total) if total > 0 else float(values.mean())


def _correlation(left: Tensor, right: Tensor) -> float:
    """Return Pearson's correlation, 0 where one side does not vary."""
    if len(left) < 2 or left.std() == 0 or right.std() == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1])
