"""What happens after the episodes: the report is written, logged and shown."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lit_qagent.evaluation.episodes import TRAJECTORIES_GLOB
from lit_qagent.evaluation.plots import report_plots
from lit_qagent.evaluation.report import REPORT_FILES, write_report
from lit_qagent.evaluation.shard import MANIFEST_FILE
from lit_qagent.evaluation.tables import (
    agent_table,
    difference_table,
    failure_table,
    flag_notes,
)
from lit_qagent.evaluation.tasks import EpisodeDataModule

_ARTIFACTS = "evaluation"
_PIPE_COLUMNS = 120


class WriteReport(Callback):
    """Writes the report at the end of predict, logs it to MLflow and prints its tables.

    Does nothing when the data of predict are no episodes.
    """

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for all processes; the first one writes."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, EpisodeDataModule):
            return
        trainer.strategy.barrier("report")
        if not trainer.is_global_zero:
            return
        folder = data.evaluation.play.output
        report = write_report(folder)
        for logger in trainer.loggers:
            if isinstance(logger, MLFlowLogger):
                log_to_mlflow(logger, report, folder)
        show_report(report, folder)


def log_to_mlflow(logger: MLFlowLogger, report: Mapping[str, Any], folder: Path) -> None:
    """Log the numbers of a report as metrics, its files, plots and table as the run's artifacts."""
    logger.log_metrics(report_metrics(report))
    files = [folder / name for name in (*REPORT_FILES, MANIFEST_FILE)]
    for path in [*files, *sorted(folder.glob(TRAJECTORIES_GLOB))]:
        logger.experiment.log_artifact(logger.run_id, str(path), _ARTIFACTS)
    for name, plot in report_plots(report).items():
        logger.experiment.log_text(logger.run_id, plot, f"{_ARTIFACTS}/plots/{name}.svg")
    head, *rows = agent_table(report)
    table = {"columns": head, "data": rows}
    logger.experiment.log_dict(logger.run_id, table, f"{_ARTIFACTS}/agents.json")


def report_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a report by names that MLflow accepts, such as ``plain/reward``."""
    metrics: dict[str, float | None] = {
        "predict/seconds": report["seconds"],
        "predict/peak_rss_gb": report["peak_rss_gb"],
    }
    for name, row in report["agents"].items():
        for key, interval in row.get("intervals", {}).items():
            metrics[f"{name}/{key}"] = row[key]
            metrics[f"{name}/{key}_low"] = interval["low"]
            metrics[f"{name}/{key}_high"] = interval["high"]
        metrics[f"{name}/failures"] = row["failures"]
        metrics |= {f"{name}/cost_{key}": cost for key, cost in (row.get("cost") or {}).items()}
    for row in report["agreement_by_depth"]:
        metrics[f"agreement/tau_depth_{row['depth']:02d}"] = row["tau"]
    for name, row in report["differences"].items():
        for key, difference in {"reward": row, **row["others"]}.items():
            for end in ("mean", "low", "high"):
                metrics[f"{name}/{key}_{end}"] = difference[end]
        for key in ("p_value", "p_holm", "cost_ratio"):
            metrics[f"{name}/{key}"] = row.get(key)
    return {key: float(value) for key, value in metrics.items() if value is not None}


def show_report(report: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """Print the tables of a report and where its files are; standard output by default."""
    console = console or Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    console.print(
        _rich_table(agent_table(report, intervals=False), "Agents on the same held-out tasks")
    )
    for note in flag_notes(report):
        console.print(f"† {note}.", markup=False)
    failures = failure_table(report, intervals=False)
    if failures:
        console.print(_rich_table(failures, "Failed episodes as reward 0"))
    differences = difference_table(report, brief=True)
    console.print(_rich_table(differences, "Differences, 95 % intervals over tasks"))
    console.print(f"Report: {folder / 'report.html'}", markup=False, soft_wrap=True)


def _rich_table(rows: list[list[str]], title: str) -> Table:
    head, *body = rows
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", collapse_padding=True)
    for position, name in enumerate(head):
        table.add_column(name, no_wrap=position < 2)
    for row in body:
        table.add_row(*row)
    return table
