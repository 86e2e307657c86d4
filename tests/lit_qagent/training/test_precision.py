"""Rows are shared in every precision that training is advised to use, with its loss."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_qagent.core.errors import ConfigError
from lit_qagent.data.batch import Sharing, collate_sequences
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.export import load_q_model
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.callbacks import ExportCheckpoint
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import Watch, adamw, make_trainer
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_spec

LORA = LoraSpec(rank=2)


def fit(folder: Path, dtype: str, precision: str, lora: LoraSpec | None, sharing: Sharing) -> Watch:
    pl.seed_everything(7, verbose=False)
    watch = Watch()
    spec = tiny_spec(save_tiny_model(folder / "model"), dtype=dtype)
    pairs = write_pairs(folder / "pairs", make_pairs(7))
    data = PreferenceDataModule(pairs, batch_size=4, sharing=sharing)
    make_trainer(watch, precision=precision).fit(StepDPO(spec, lora, optimizer=adamw), data)
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

    assert (shared.is_branched(), alone.is_branched()) == ({True}, {False})
    assert shared.losses == pytest.approx(alone.losses, abs=0.15)  # bfloat16 rounds
    assert shared.losses[-1] < 0.95 * shared.losses[0]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_precision_that_casts_the_whole_model_is_refused(tmp_path: Path, precision: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"trainer.precision {precision} .* set it to bf16-mixed, or to 32-true"
    ):
        fit(tmp_path, "float32", precision, LORA, "batch")


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # bitsandbytes and triton warn where there is no GPU
def test_a_4_bit_fit_goes_on_from_its_ckpt_and_is_exported(tmp_path: Path) -> None:
    spec = tiny_spec(save_tiny_model(tmp_path / "model"), quantization="nf4")
    data = write_pairs(tmp_path / "pairs", make_pairs(7))

    def go_on(max_epochs: int, ckpt_path: Path | None) -> StepDPO:
        module = StepDPO(spec, LORA, optimizer=adamw)
        trainer = make_trainer(
            ModelCheckpoint(dirpath=tmp_path, filename="last", enable_version_counter=False),
            ExportCheckpoint(tmp_path / "exported"),
            max_epochs=max_epochs,
        )
        trainer.fit(module, PreferenceDataModule(data, batch_size=4), ckpt_path=ckpt_path)
        return module

    go_on(1, None)
    trained = go_on(2, tmp_path / "last.ckpt")

    assert trained.q_model is not None
    shared = load_q_model(tmp_path / "exported", spec)
    batch = collate_sequences([[TokenSequence([40, 41], [50, 2]), TokenSequence([40, 41], [60])]])
    with torch.no_grad():
        expected, found = trained.q_model.eval()(batch), shared.eval()(batch)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)
