"""Training stops before bad numbers get into the weights, and says what to lower."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import Precision

from lit_qagent.core.errors import TrainingFailure
from lit_qagent.data.batch import PairBatch
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.training.guards import memory_advice, refuse_bad_losses
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import make_module, make_trainer
from tests.pair_folder import make_pairs, write_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), make_pairs(8))


def fit(
    model: Path,
    pairs: Path,
    folder: Path,
    *callbacks: pl.Callback,
    plugins: list[Precision] | None = None,
    ckpt_path: Path | None = None,
) -> StepDPO:
    module = make_module(model)
    saving = ModelCheckpoint(folder, "last", save_on_exception=True)
    trainer = make_trainer(saving, *callbacks, plugins=plugins)
    data = PreferenceDataModule(pairs, batch_size=4)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module


class Poison(pl.Callback):
    """Makes the labels or the gradients of the third batch something that is no number."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: PairBatch, batch_idx: int
    ) -> None:
        if self.what == "loss" and trainer.global_step == 2:
            assert batch.reference_log_probs is not None
            batch.reference_log_probs[0] = float("nan")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.what == "gradient" and trainer.global_step == 2:
            [*_, last] = [p for p in pl_module.parameters() if p.grad is not None]
            assert last.grad is not None
            last.grad[0] = float("inf")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("loss", r"the loss of 1 of 4 pairs is not finite: task task-\d tree tree-\d depth \d;"),
        ("gradient", r"the gradients of 1 weights are not finite, such as 'q_model"),
    ],
)
def test_numbers_that_are_none_stop_training_and_nothing_is_saved(
    model: Path, pairs: Path, tmp_path: Path, what: str, message: str
) -> None:
    with pytest.raises(TrainingFailure, match=f"{message}.*go on from the last checkpoint: none"):
        fit(model, pairs, tmp_path, Poison(what))

    assert not list(tmp_path.glob("*.ckpt"))


class BreakWeights(pl.Callback):
    """Makes the last but one step of training far too large; its gradients are finite."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: PairBatch, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.estimated_stepping_batches - 2:
            trainer.optimizers[0].param_groups[0]["lr"] = 1e18


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_step_that_breaks_the_weights_is_not_saved_and_training_goes_on_before_it(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingFailure, match="the loss of 4 of 4 pairs is not finite"):
        fit(model, pairs, tmp_path, BreakWeights())
    last = tmp_path / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    resumed = fit(model, pairs, tmp_path, ckpt_path=last)

    assert all(weight.abs().max() < 10 for weight in saved["state_dict"].values())
    assert all(weight.abs().max() < 10 for weight in resumed.parameters())


def test_finite_losses_pass() -> None:
    refuse_bad_losses(torch.tensor([0.0, 700.0]), ["a", "b"])
    with pytest.raises(TrainingFailure, match="loss of 1 of 2 pairs is not finite: b;"):
        refuse_bad_losses(torch.tensor([0.0, float("inf")]), ["a", "b"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_lower(error: Exception) -> None:
    expected = r"lower data.max_tokens .*gradient_checkpointing"
    with pytest.raises(TrainingFailure, match=expected), memory_advice():
        raise error


def test_the_allocator_of_main_memory_is_understood() -> None:
    expected = r"out of memory in a training batch; lower .*tried to allocate"
    with pytest.raises(TrainingFailure, match=expected), memory_advice():
        torch.empty(2**50)


class RunOut(pl.Callback):
    """Lets memory run out in one place of the first step."""

    def __init__(self, where: str) -> None:
        self.where = where

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, StepDPO)
        pl_module.configure_model()
        assert pl_module.q_model is not None
        evidence = pl_module.q_model.evidence

        def run_out(*_: Any) -> None:  # noqa: ANN401
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

        def measured(*arguments: Any) -> Any:  # noqa: ANN401
            is_place = pl_module.training == (self.where == "training batch")
            return run_out() if is_place else evidence(*arguments)

        if self.where == "reference":
            pl_module.q_model.reference_log_probs = run_out  # type: ignore[assignment]
        elif self.where != "optimizer":
            pl_module.q_model.evidence = measured  # type: ignore[assignment]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.where == "optimizer":
            trainer.optimizers[0].register_step_pre_hook(self.on_step)

    @staticmethod
    def on_step(*_: Any) -> None:  # noqa: ANN401
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("training batch", "in a training batch; lower data.max_tokens .*gradient_checkpointing"),
        ("optimizer", "in the optimizer's step; train an adapter .* or lower data.max_tokens"),
        ("held-out pairs", "on held-out pairs; lower data.max_tokens"),
        (
            "reference",
            "in the pass of the reference .*; lower data.max_tokens .*to live",
        ),
    ],
)
def test_every_pass_says_what_to_lower_there(
    model: Path, pairs: Path, tmp_path: Path, where: str, message: str
) -> None:
    with pytest.raises(TrainingFailure, match=f"out of memory {message}.*Tried to allocate"):
        fit(model, pairs, tmp_path, RunOut(where))


class Scaled(Precision):
    """Skips steps as the scaler of 16-mixed does, which runs on a GPU only."""

    scaler = object()

    def optimizer_step(  # type: ignore[override] # as Lightning's own plugins
        self,
        optimizer: torch.optim.Optimizer,
        model: pl.LightningModule,
        closure: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        found = self._wrap_closure(model, optimizer, closure)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if all(gradient.isfinite().all() for gradient in gradients):
            optimizer.step(**kwargs)
        return found


def test_a_step_that_the_scaler_skips_does_not_stop_training(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    module = fit(model, pairs, tmp_path, Poison("gradient"), plugins=[Scaled()])

    assert all(weight.isfinite().all() for weight in module.parameters())


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), memory_advice():
        raise RuntimeError("shapes differ")
