"""Callbacks that show how fast training is, and how far Q can be believed."""

import resource
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch

from lit_qagent.data.batch import PairBatch
from lit_qagent.training.callbacks import mlflow_loggers
from lit_qagent.training.module import StepDPO
from lit_qagent.training.pair_table import reliability_plot


class LogSpeed(pl.Callback):
    """Tokens per second, padding, sharing and peak memory of each batch, also on the progress bar.

    ``speed/tokens_per_s`` counts the tokens of all sequences as if nothing were shared, so it is
    what a trainer that shares nothing would have to reach; ``speed/sharing`` is how many of them
    one computed token stands for, ``speed/padding`` the share of computed tokens that is padding.
    """

    def __init__(self) -> None:
        self._start = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: PairBatch, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401 (Lightning's)
        batch: PairBatch,
        batch_idx: int,
    ) -> None:
        """Log the batch that was just trained on."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._start
        computed = batch.tokens.token_ids.numel()
        real = int(batch.tokens.is_token.sum())
        shown = {
            "speed/tokens_per_s": batch.num_unshared_tokens / seconds,
            "speed/memory_gb": peak_memory_gb(),
            "speed/padding": 1 - real / computed,
            "speed/sharing": batch.num_unshared_tokens / real,
        }
        pl_module.log_dict(shown, prog_bar=True, batch_size=batch.num_pairs)


class LogReliability(pl.Callback):
    """Logs a plot of Q against the Monte-Carlo return after validation and test, to MLflow."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plot the validation sets together."""
        if not trainer.sanity_checking:
            self._log(trainer, pl_module, f"val_step_{trainer.global_step}")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plot the test sets together."""
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        loggers = mlflow_loggers(trainer)
        if not loggers or not isinstance(pl_module, StepDPO):
            return
        figure = reliability_plot(pl_module.tables)
        for logger in loggers:
            logger.experiment.log_figure(logger.run_id, figure, f"reliability/{name}.png")


def peak_memory_gb() -> float:
    """Return the most memory used so far, in 1e9 bytes: on the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
