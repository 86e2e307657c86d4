"""A module of the tiny model, a trainer that shows nothing, and what a fit leaves to look at."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_qagent.data.batch import PairBatch
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.module import StepDPO
from tests.tiny_q_model import tiny_spec


def adamw(parameters: Iterable[Tensor], lr: float = 5e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr)


def make_module(model: Path, **changes: Any) -> StepDPO:  # noqa: ANN401
    """Return a module that trains an adapter, the same each time."""
    pl.seed_everything(7, verbose=False)
    return StepDPO(tiny_spec(model), **{"lora": LoraSpec(rank=2), "optimizer": adamw, **changes})


def make_full_module(model: Path, **changes: Any) -> StepDPO:  # noqa: ANN401
    """Return a module that trains all weights, in smaller steps."""
    settings = {"lora": None, "optimizer": lambda parameters: adamw(parameters, lr=1e-3)}
    return make_module(model, **{**settings, **changes})


def make_trainer(*callbacks: pl.Callback, **changes: Any) -> pl.Trainer:  # noqa: ANN401
    """Return a trainer of two epochs; it saves only what a callback saves."""
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "callbacks": list(callbacks),
    }
    return pl.Trainer(**{**settings, **changes})


def fit(module: StepDPO, pairs: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:  # noqa: ANN401
    """Train on the pairs, four at a time; the options are those of ``Trainer.fit``."""
    trainer = make_trainer(*callbacks)
    trainer.fit(module, PreferenceDataModule(pairs, batch_size=4), **options)
    return trainer


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights that are trained, by their names."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


class Watch(pl.Callback):
    """Keeps every batch, its loss, and what the progress bar showed last."""

    def __init__(self) -> None:
        self.batches: list[PairBatch] = []
        self.losses: list[float] = []
        self.shown: dict[str, float] = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: PairBatch,
        batch_idx: int,
    ) -> None:
        self.batches.append(batch)
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.shown = {k: float(v) for k, v in trainer.progress_bar_metrics.items()}

    def is_branched(self) -> set[bool]:
        """Return whether the batches shared rows."""
        return {batch.tokens.is_branched for batch in self.batches}
