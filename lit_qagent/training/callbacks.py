"""Side effects of training: the config and the lineage in the logger, the shareable checkpoint."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import MLFlowLogger
from torch import Tensor

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.manifest import write_json
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.export import describe, save_checkpoint
from lit_qagent.models.q_model import QModel
from lit_qagent.training.module import StepDPO
from lit_qagent.training.saved import read_saved
from lit_qagent.training.sharding import gathered

_log = logging.getLogger(__name__)


class SaveConfig(SaveConfigCallback):
    """Logs the whole config as an MLflow artifact, or writes it into the log folder.

    For ``LightningCLI(save_config_callback=SaveConfig,
    save_config_kwargs={"save_to_log_dir": False})``: Lightning's own callback fails where the
    logger has no folder.
    """

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save the config of one command; several commands of a run have a file each."""
        text = self.parser.dump(self.config, skip_link_targets=False)
        name = f"{getattr(stage, 'value', stage)}.yaml"
        for logger in mlflow_loggers(trainer):
            logger.experiment.log_text(logger.run_id, text, f"config/{name}")
        found = _log_folder(trainer)
        if found:
            folder = Path(found)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"config_{name}").write_text(text, encoding="utf-8")


class LogLineage(pl.Callback):
    """Logs what is trained on, the optimizer, and what the context limit has cost."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log before the first step, so that an interrupted run has it too."""
        values = _run_facts(trainer, pl_module)
        for logger in mlflow_loggers(trainer):
            logger.experiment.log_dict(logger.run_id, values, "lineage.json")
        counts = {f"data/{name}": float(n) for name, n in values["counts"].items()}
        for any_logger in trainer.loggers:
            any_logger.log_metrics(counts, step=0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the optimizer's settings, which are not among the module's arguments."""
        for optimizer in trainer.optimizers:
            plain = {
                f"optimizer/{name}": value
                for name, value in optimizer.defaults.items()
                if isinstance(value, int | float | str | tuple)
            }
            settings = {"optimizer/class": type(optimizer).__name__, **plain}
            for logger in trainer.loggers:
                logger.log_hyperparams(settings)


class ExportCheckpoint(pl.Callback):
    """Writes the shareable checkpoint at the end of training, from the best weights.

    Best is what ``ModelCheckpoint`` monitors; without one that monitors, the last weights.

    Args:
        folder: Where to write; an older checkpoint there is replaced.
        dtype: Precision of the written weights; None keeps that of training, which is float32 for
            adapters, whatever the backbone's. ``bfloat16`` halves the folder and rounds each weight
            by at most 0.4 %.
    """

    def __init__(self, folder: Path, dtype: Literal["bfloat16", "float32"] | None = None) -> None:
        self.folder = Path(folder)
        self.dtype = dtype

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the folder; the module keeps its last weights."""
        if not isinstance(pl_module, StepDPO) or pl_module.q_model is None:
            raise ConfigError("ExportCheckpoint works with StepDPO only; remove the callback")
        # In main memory, as all weights of a model may be trained; of shards by all processes.
        trainable = {n: p for n, p in pl_module.named_parameters() if p.requires_grad}
        weights = gathered(trainable)
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        best = _best_path(trainer)
        if best is not None:
            weights, metrics = read_saved(best, trainable)
        card = describe(
            pl_module.q_model,
            max_length=pl_module.max_length,
            lineage=pl_module.lineage,
            metrics=metrics,
        )
        dtype = getattr(torch, self.dtype) if self.dtype else None
        names = _names_in_model(pl_module.q_model, trainable)
        of_model = {names[n]: weight.to(dtype=dtype) for n, weight in weights.items()}
        save_checkpoint(self.folder, pl_module.q_model, card, of_model)
        _log.info("checkpoint with the %s weights: %s", "best" if best else "last", self.folder)


class WriteMetrics(pl.Callback):
    """Writes what ``test`` measured as JSON, for programs that read it.

    Args:
        path: The file; an older one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write every metric by its logged name."""
        if trainer.is_global_zero:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, metrics)


def _log_folder(trainer: pl.Trainer) -> str | Path | None:
    """Return where the first logger writes, or the default folder without one.

    ``trainer.log_dir`` waits for every process, and this is asked on the first one only.
    """
    if not trainer.loggers:
        return trainer.default_root_dir
    return trainer.loggers[0].log_dir or trainer.loggers[0].save_dir


def mlflow_loggers(trainer: pl.Trainer) -> list[MLFlowLogger]:
    """Return the trainer's MLflow loggers."""
    return [logger for logger in trainer.loggers if isinstance(logger, MLFlowLogger)]


def _best_path(trainer: pl.Trainer) -> Path | None:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            return Path(callback.best_model_path)
    return None


def _names_in_model(q_model: QModel, trainable: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the name in the model of each weight of the module; its own if the model has it not.

    The module holds some parts of the model under names of its own.
    """
    in_model = {id(weight): name for name, weight in q_model.named_parameters()}
    return {name: in_model.get(id(weight), name) for name, weight in trainable.items()}


def _run_facts(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
    """Return lineage and counts as plain values."""
    data = getattr(trainer, "datamodule", None)
    facts: dict[str, Any] = {"lineage": {}, "counts": {}}
    if isinstance(pl_module, StepDPO):
        facts["lineage"] = pl_module.lineage
        facts["counts"] |= pl_module.renderer.counts.to_dict()
    if isinstance(data, PreferenceDataModule):
        facts["counts"] |= {f"{split}_pairs": n for split, n in data.num_pairs.items()}
    return facts
