"""Speed on the progress bar, counted by hand; a model that cannot share trains unpacked, said."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from lit_qagent.data.batch import PairBatch
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.module import StepDPO
from lit_qagent.training.monitors import LogSpeed
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_spec


class Watch(pl.Callback):
    """Keeps what the progress bar shows, the last batch, and whether rows were shared."""

    def __init__(self) -> None:
        self.shown: dict[str, float] = {}
        self.batch: PairBatch | None = None
        self.branched: set[bool] = set()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: PairBatch,
        batch_idx: int,
    ) -> None:
        self.shown = {k: float(v) for k, v in trainer.progress_bar_metrics.items()}
        self.batch = batch
        self.branched.add(batch.tokens.is_branched)


def fit(model: Path, folder: Path, sharing: str) -> Watch:
    watch = Watch()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LogSpeed(), watch],
    )
    module = StepDPO(
        tiny_spec(model),
        LoraSpec(rank=2),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=5e-3),
    )
    pairs = write_pairs(folder / "pairs", make_pairs(8))
    trainer.fit(module, PreferenceDataModule(pairs, batch_size=4, sharing=sharing))  # type: ignore[arg-type]
    return watch


def test_the_progress_bar_shows_speed_padding_sharing_and_memory(tmp_path: Path) -> None:
    watch = fit(save_tiny_model(tmp_path / "model"), tmp_path, "pair")

    assert watch.batch is not None
    tokens = watch.batch.tokens
    real = int(tokens.is_token.sum())
    assert watch.shown["speed/padding"] == pytest.approx(1 - real / tokens.token_ids.numel())
    assert watch.shown["speed/sharing"] == pytest.approx(watch.batch.num_unshared_tokens / real)
    assert watch.shown["speed/sharing"] > 1.5
    assert watch.shown["speed/tokens_per_s"] > 0
    assert watch.shown["speed/memory_gb"] > 0.1


def test_a_model_that_packing_cannot_serve_trains_unpacked_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_tiny_model(tmp_path / "model", kind="bloom")  # ALiBi counts within the row

    watch = fit(model, tmp_path, "batch")

    assert watch.batch is not None
    assert not watch.batch.tokens.is_branched
    assert watch.shown["speed/sharing"] == 1.0
    assert "cannot keep sequences apart that share a row (recurrent" in caplog.text
    assert "data.sharing is none instead of batch" in caplog.text


def test_a_model_with_a_window_shares_what_stays_within_it_and_the_log_counts_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_tiny_model(tmp_path / "model", kind="phi3", sliding_window=120)

    watch = fit(model, tmp_path, "batch")

    # Of 6 tasks one pair in two, the one at depth 1, has more than 120 tokens.
    assert "no sequence of more than 120 tokens share a row" in caplog.text
    assert "6 of 12 train, 1 of 2 valid, 1 of 2 test pairs are computed unshared" in caplog.text
    assert watch.branched == {True, False}
