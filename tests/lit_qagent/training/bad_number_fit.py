"""Trains on two CPU processes, one of which meets a number that is none.

``bad_number_fit.py MODEL PAIRS OUTPUT STRATEGY WHAT RANK``: STRATEGY is ``ddp`` or ``fsdp2``, WHAT
``loss`` or ``gradient``. Lightning starts the second process by calling this file again.
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from lit_qagent.core.errors import TrainingFailure
from lit_qagent.data.batch import PairBatch
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.losses import LossSpec
from lit_qagent.training.module import StepDPO
from lit_qagent.training.sharding import local
from tests.tiny_q_model import tiny_spec


class PoisonOne(pl.Callback):
    """Spoils the third step of one process."""

    def __init__(self, what: str, rank: int) -> None:
        self.what = what
        self.rank = rank

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: PairBatch, batch_idx: int
    ) -> None:
        if self.what == "loss" and self._is_time(trainer):
            batch.q_hat[0] = float("nan")

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        if self.what == "gradient" and self._is_time(trainer):
            [first, *_] = [p.grad for p in pl_module.parameters() if p.grad is not None]
            local(first)[0] = float("nan")

    def _is_time(self, trainer: pl.Trainer) -> bool:
        return trainer.global_rank == self.rank and trainer.global_step == 2


def fit(model: Path, pairs: Path, output: Path, strategy: str, poison: PoisonOne) -> None:
    pl.seed_everything(42, verbose=False)
    module = StepDPO(
        tiny_spec(model),
        LoraSpec(rank=2),
        loss=LossSpec(name="offset"),  # the only one that reads what is spoilt here
        reference="live",
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.5),
    )
    sharded = ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=sharded if strategy == "fsdp2" else strategy,
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(output, "last", save_on_exception=True), poison],
    )
    try:
        trainer.fit(module, PreferenceDataModule(pairs, batch_size=2))
    except TrainingFailure as failure:
        (output / f"rank{trainer.global_rank}.txt").write_text(str(failure), encoding="utf-8")


if __name__ == "__main__":
    *paths, strategy, what, rank = sys.argv[1:]
    model, pairs, output = map(Path, paths)
    fit(model, pairs, output, strategy, PoisonOne(what, int(rank)))
