"""Rows are shared in every precision that training is advised to use, with its loss."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from lit_qagent.data.batch import PairBatch
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.module import StepDPO
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_spec

LORA = LoraSpec(rank=2)


class Watch(pl.Callback):
    """Keeps whether the batches shared rows, and their losses."""

    def __init__(self) -> None:
        self.is_branched: set[bool] = set()
        self.losses: list[float] = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: PairBatch,
        batch_idx: int,
    ) -> None:
        self.is_branched.add(batch.tokens.is_branched)
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def fit(folder: Path, dtype: str, precision: str, lora: LoraSpec | None, sharing: str) -> Watch:
    pl.seed_everything(7, verbose=False)
    watch = Watch()
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[watch],
    )
    module = StepDPO(
        tiny_spec(save_tiny_model(folder / "model"), dtype=dtype),
        lora,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=5e-3),
    )
    pairs = write_pairs(folder / "pairs", make_pairs(7))
    trainer.fit(module, PreferenceDataModule(pairs, batch_size=4, sharing=sharing))  # type: ignore[arg-type]
    return watch


@pytest.mark.parametrize(
    ("dtype", "precision", "lora"),
    [
        ("float32", "bf16-mixed", LORA),
        ("float32", "bf16-mixed", None),  # what docs/training.md advises for all weights
        ("bfloat16", "32-true", LORA),
        ("bfloat16", "bf16-mixed", LORA),
    ],
)
def test_a_fit_shares_rows_in_every_precision(
    tmp_path: Path, dtype: str, precision: str, lora: LoraSpec | None
) -> None:
    shared = fit(tmp_path, dtype, precision, lora, "batch")
    alone = fit(tmp_path, dtype, precision, lora, "none")

    assert (shared.is_branched, alone.is_branched) == ({True}, {False})
    assert shared.losses == pytest.approx(alone.losses, abs=0.15)  # bfloat16 rounds
    assert shared.losses[-1] < 0.95 * shared.losses[0]
