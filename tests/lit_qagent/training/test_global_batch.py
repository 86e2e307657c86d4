"""A step is the same however its pairs are spread over batches, rows and processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml

from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.module import StepDPO
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_spec

# 9 training tasks of 2 pairs: 18 pairs in steps of 4, 4, 4, 4 and 2.
NUM_TASKS = 11


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-model")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), make_pairs(NUM_TASKS))


def weights_after(model: Path, pairs: Path, accumulate: int = 1, **data: Any) -> dict[str, Any]:  # noqa: ANN401
    pl.seed_everything(42, verbose=False)
    module = StepDPO(
        tiny_spec(model),
        LoraSpec(rank=2),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, PreferenceDataModule(pairs, **data))
    assert trainer.global_step == 10
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert any(weight.abs().max() > 1e-4 for n, weight in expected.items() if "lora_B" in n)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("sharing", ["batch", "pair", "none"])
def test_accumulated_batches_weigh_by_pairs(model: Path, pairs: Path, sharing: str) -> None:
    expected = weights_after(model, pairs, batch_size=4)

    assert_same(weights_after(model, pairs, accumulate=2, batch_size=2, sharing=sharing), expected)


CONFIG: dict[str, Any] = {
    "seed_everything": 42,
    "trainer": {
        "accelerator": "cpu",
        "devices": 2,
        "strategy": "ddp",
        "max_epochs": 2,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "model": {
        "lora": {"rank": 2},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}},
    },
    "data": {
        "class_path": "lit_qagent.data.datamodule.PreferenceDataModule",
        "init_args": {"batch_size": 2},
    },
}


@pytest.mark.integration
def test_two_processes_train_as_one_does_on_the_same_global_batch(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    config = {**CONFIG, "model": {**CONFIG["model"], "backbone": vars(tiny_spec(model))}}
    config["data"]["init_args"]["pairs"] = str(pairs)
    config["trainer"]["callbacks"] = [
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(tmp_path / "fit"), "filename": "last"},
        }
    ]
    file = tmp_path / "fit.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")

    command = [sys.executable, "-m", "lit_qagent", "fit", "--config", str(file)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,  # where the config is written
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
    )

    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)
    assert found["global_step"] == 10
    assert_same(found["state_dict"], weights_after(model, pairs, batch_size=4))
