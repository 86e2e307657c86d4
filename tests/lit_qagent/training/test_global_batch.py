"""A step is the same however its pairs are spread over batches, rows and processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.export import load_q_model
from lit_qagent.models.q_heads import BothQHeads, ImplicitQHead, QHead
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import make_trainer, weights_of
from tests.lit_qagent.training.sharded_fit import CLIP_NORM, CLIP_VALUE
from tests.pair_folder import make_pair, make_pairs, write_pairs
from tests.tiny_q_model import tiny_spec

# 9 training tasks of 2 pairs: 18 pairs in steps of 4, 4, 4, 4 and 2.
NUM_TASKS = 11


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), make_pairs(NUM_TASKS))


def weights_after(  # noqa: PLR0913 (what the runs differ in)
    model: Path,
    pairs: Path,
    accumulate: int = 1,
    lora: LoraSpec | None = LoraSpec(rank=2),  # noqa: B008 (frozen)
    reference: Any = "cached",  # noqa: ANN401
    momentum: float = 0.0,
    q_head: QHead = ImplicitQHead(beta=0.1),  # noqa: B008 (copied)
    clip: tuple[float, str] | None = None,
    **data: Any,  # noqa: ANN401
) -> dict[str, Any]:
    pl.seed_everything(42, verbose=False)
    module = StepDPO(
        tiny_spec(model),
        lora,
        q_head,
        reference=reference,
        optimizer=lambda parameters: torch.optim.SGD(
            parameters,
            lr=0.02 if momentum else 0.05,
            momentum=momentum,
        ),
        warmup_fraction=0 if momentum else 0.1,
    )
    trainer = make_trainer(
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip and clip[0],
        gradient_clip_algorithm=clip and clip[1],
    )
    trainer.fit(module, PreferenceDataModule(pairs, **data))
    assert trainer.global_step == 10
    return weights_of(module)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert any(weight.abs().max() > 1e-4 for n, weight in expected.items() if "lora_B" in n)
    for name, weight in expected.items():
        # Other rows round otherwise, in each of ten steps.
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sharing", ["batch", "pair", "none"])
def test_accumulated_batches_weigh_by_pairs(model: Path, pairs: Path, sharing: str) -> None:
    expected = weights_after(model, pairs, batch_size=4)

    assert_same(weights_after(model, pairs, accumulate=2, batch_size=2, sharing=sharing), expected)


CONFIG = """
seed_everything: 42
trainer:
  accelerator: cpu
  max_epochs: 2
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{dirpath: {folder}, filename: last}}
model:
  backbone: {{name: {model}, dtype: float32}}
  lora: {{rank: 2}}
  optimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.05}}}}
data:
  class_path: PreferenceDataModule
  init_args: {{pairs: {pairs}}}
"""
_ROOT = Path(__file__).parents[3]


def weights_of_command(folder: Path, model: Path, pairs: Path, *options: str) -> dict[str, Any]:
    folder.mkdir()
    config = folder / "fit.yaml"
    config.write_text(CONFIG.format(folder=folder, model=model, pairs=pairs), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "lit_qagent", "fit", "--config", str(config), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=folder,  # where the config is logged
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sync_dist" not in done.stderr
    found = torch.load(folder / "last.ckpt", weights_only=True)
    assert found["global_step"] == 10
    weights: dict[str, Any] = found["state_dict"]
    return weights


@pytest.mark.integration
def test_two_processes_train_as_one_does_on_the_same_global_batch(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    # 6 pairs, and 3 batches on two processes: each pair is measured once.
    other = [make_pair(task, depth) for task in range(20, 23) for depth in range(2)]
    also = ("--data.also.more", str(write_pairs(tmp_path / "more", other)))
    one = weights_of_command(tmp_path / "one", model, pairs, "--data.batch_size", "4", *also)
    options = ("--data.batch_size", "2", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    two = weights_of_command(tmp_path / "two", model, pairs, *options, *also)

    assert_same(two, one)
    measured = [torch.load(tmp_path / name / "last.ckpt")["metrics"] for name in ("one", "two")]
    for name in ("loss", "accuracy", "margin", "rank_correlation", "kendall_tau"):
        for prefix in ("val", "val_more"):
            one_value, two_value = (values[f"{prefix}/{name}"] for values in measured)
            assert two_value == pytest.approx(one_value, abs=1e-4), f"{prefix}/{name}"


@pytest.mark.integration
def test_two_processes_with_shards_train_and_resume_as_one_does(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sharded_fit.py")), model, pairs, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]

    runs: dict[str, dict[str, Any]] = {
        "lora": {},
        "full": {"lora": None, "reference": "copy"},
        # Weights in shards and whole ones.
        "clipped": {"q_head": BothQHeads(), "clip": CLIP_NORM},
        "cut": {"q_head": BothQHeads(), "clip": CLIP_VALUE},
    }
    for name, settings in runs.items():
        one = weights_after(model, pairs, batch_size=4, momentum=0.5, **settings)
        saved = torch.load(tmp_path / name / "last.ckpt", weights_only=True)
        assert saved["global_step"] == 10
        two = saved["state_dict"]
        assert two.keys() == one.keys()
        for key, weight in one.items():
            torch.testing.assert_close(two[key], weight, atol=1e-5, rtol=1e-4)
        exported = load_q_model(tmp_path / name / "out", tiny_spec(model), trainable=True)
        trained = {
            # The module's first name for a head is its own.
            f"_{name}" if name.startswith("head.") else f"q_model.{name}": weight.detach()
            for name, weight in exported.named_parameters()
            if weight.requires_grad
        }
        assert trained.keys() == two.keys()
        assert all(torch.equal(weight, two[name]) for name, weight in trained.items())
