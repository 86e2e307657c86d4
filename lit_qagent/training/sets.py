"""Held-out sets side by side: what was trained for, and what lies outside of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl

from lit_qagent.training.callbacks import mlflow_loggers
from lit_qagent.training.module import StepDPO

_GROUPS = ("accuracy_by_depth", "accuracy_by_margin", "accuracy_by_visits")


class CompareSets(pl.Callback):
    """Prints the metrics of all held-out sets as one table and logs it to MLflow, with a plot.

    It does so after ``fit``, ``validate`` and ``test``, and to MLflow after every validation. With
    a single set there is nothing to compare and nothing is done.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the validation sets; print them unless training goes on."""
        if not trainer.sanity_checking:
            self._log(trainer, pl_module, f"val_step_{trainer.global_step}")
            if trainer.state.fn == "validate":
                self._show(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the last validation."""
        self._show(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log and print the test sets."""
        self._log(trainer, pl_module, "test")
        self._show(trainer, pl_module)

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        table = _table(trainer, pl_module)
        if table and trainer.is_global_zero:
            from rich.console import Console

            Console().print(_rich(table))

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        table = _table(trainer, pl_module)
        loggers = mlflow_loggers(trainer)
        if not table or not loggers or not trainer.is_global_zero:
            return
        figure = sets_plot(table)
        for logger in loggers:
            client, run_id = logger.experiment, logger.run_id
            client.log_dict(run_id, table, f"sets/{name}.json")
            client.log_text(run_id, as_markdown(table), f"sets/{name}.md")
            client.log_figure(run_id, figure, f"sets/{name}.png")


Table = dict[str, dict[str, float]]


def side_by_side(metrics: Mapping[str, float], sets: Sequence[str]) -> Table:
    """Return the value of each metric in each set that has it, by metric and set.

    Examples:
        >>> side_by_side({"val/margin": 0.5, "val_ood/margin": 0.1, "train/loss": 0.7},
        ...              ["val", "val_ood"])
        {'margin': {'val': 0.5, 'val_ood': 0.1}}
    """
    table: Table = {}
    for name in sets:
        for key, value in metrics.items():
            prefix, _, metric = key.partition("/")
            if prefix == name:
                table.setdefault(metric, {})[name] = value
    return dict(sorted(table.items(), key=lambda item: ("/" in item[0], item[0])))


def sets_of(table: Table) -> list[str]:
    """Return the names of a table's sets, in order."""
    return list(dict.fromkeys(name for values in table.values() for name in values))


def as_markdown(table: Table) -> str:
    """Return the table as Markdown; a metric that a set does not have is a blank cell."""
    names = sets_of(table)
    lines = [f"| metric | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {metric} | {' | '.join(_cells(table, metric))} |" for metric in table]
    return "\n".join(lines) + "\n"


def sets_plot(table: Table) -> Any:  # noqa: ANN401 (a matplotlib figure)
    """Draw accuracy by depth, margin and visits, a line for each set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.5), layout="constrained")
    for axes, group in zip(figure.subplots(1, 3, sharey=True), _GROUPS, strict=True):
        keys = [metric for metric in table if metric.startswith(f"{group}/")]
        if group != "accuracy_by_depth":
            keys = [f"{group}/{part}" for part in ("low", "middle", "high")]
        places = range(len(keys))
        for name in sets_of(table):
            values = [table.get(key, {}).get(name, float("nan")) for key in keys]
            axes.plot(places, values, "o-", label=name)
        axes.axhline(0.5, color="grey", linewidth=1)
        axes.set_xticks(places, [key.split("/")[1] for key in keys])
        axes.set(xlabel=group.removeprefix("accuracy_by_"), ylim=(0, 1.02))
        axes.legend()
    return figure


def _table(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Table:
    """Return the table of the sets measured last; empty if there are not two."""
    if not isinstance(pl_module, StepDPO) or len(pl_module.tables) < 2:
        return {}
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return side_by_side(metrics, list(pl_module.tables))


def _cells(table: Table, metric: str) -> list[str]:
    values = table[metric]
    return [f"{values[name]:.3f}" if name in values else "" for name in sets_of(table)]


def _rich(table: Table) -> Any:  # noqa: ANN401 (a rich table)
    from rich.table import Table as RichTable

    names = sets_of(table)
    shown = RichTable("metric", title="held-out sets")
    for name in names:
        shown.add_column(name, justify="right")
    for metric in table:
        shown.add_row(metric, *_cells(table, metric))
    return shown
