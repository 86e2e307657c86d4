"""Training on a stream learns, resumes exactly, and says what it cannot do."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_qagent.core.errors import ConfigError
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import make_module, make_trainer, weights_of


def streamed_module(model: Path, **changes: Any) -> StepDPO:  # noqa: ANN401
    return make_module(model, **{"reference": "live", "warmup_fraction": 0, **changes})


def fit(
    module: StepDPO,
    pairs: Path,
    *callbacks: pl.Callback,
    resume: Path | None = None,
    **trainer: Any,  # noqa: ANN401
) -> pl.Trainer:
    running = make_trainer(*callbacks, **trainer)
    data = PreferenceDataModule(pairs, batch_size=4, streaming=True, window=8)
    running.fit(module, data, ckpt_path=resume, weights_only=True)
    return running


def test_training_on_a_stream_learns(model: Path, pairs: Path) -> None:
    trainer = fit(streamed_module(model), pairs, max_epochs=12)

    assert trainer.global_step == 12 * 5  # 18 pairs in windows of 8 and 10: 2 and 3 batches
    assert trainer.callback_metrics["train/loss"] < 0.4  # log 2 = 0.69 untrained


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("step", "accumulate"),
    [(1, 1), (3, 1), (5, 1), (7, 1), (2, 2), (3, 2), (4, 2)],  # with 2 an epoch has 3 steps
)
def test_a_resumed_run_equals_one_that_was_never_interrupted(
    model: Path, pairs: Path, tmp_path: Path, step: int, accumulate: int
) -> None:
    uninterrupted, resumed = streamed_module(model), streamed_module(model)
    first, second = (
        ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1) for _ in range(2)
    )

    expected = fit(uninterrupted, pairs, first, accumulate_grad_batches=accumulate)
    found = fit(
        resumed,
        pairs,
        second,
        resume=tmp_path / f"step={step}.ckpt",
        accumulate_grad_batches=accumulate,
    )

    assert expected.global_step == found.global_step == (10 if accumulate == 1 else 6)
    wanted = weights_of(uninterrupted)
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights_of(resumed).items())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize(
    ("accumulate", "limit", "num_steps"), [(1, 1.0, 15), (2, 1.0, 9), (1, 3, 9), (2, 3, 6)]
)
def test_a_run_resumes_at_the_end_of_an_epoch(
    model: Path,
    pairs: Path,
    tmp_path: Path,
    accumulate: int,
    limit: float,
    num_steps: int,
    validates: bool,
) -> None:
    uninterrupted, resumed = streamed_module(model), streamed_module(model)
    first, second = (ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1) for _ in range(2))
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate, "max_epochs": 3}
    options |= {"limit_val_batches": 1.0 if validates else 0, "limit_train_batches": limit}

    expected = fit(uninterrupted, pairs, first, **options)
    found = fit(resumed, pairs, second, resume=tmp_path / "epoch=0.ckpt", **options)

    assert expected.global_step == found.global_step == num_steps
    wanted = weights_of(uninterrupted)
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights_of(resumed).items())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("step", "accumulate"), [(2, 1), (3, 1), (4, 1), (6, 1), (1, 2), (2, 2), (3, 2)]
)
def test_a_run_resumes_in_epochs_that_a_limit_ends(
    model: Path, pairs: Path, tmp_path: Path, step: int, accumulate: int
) -> None:
    uninterrupted, resumed = streamed_module(model), streamed_module(model)
    first, second = (
        ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1) for _ in range(2)
    )
    options: dict[str, Any] = {"limit_train_batches": 3, "max_epochs": 3}
    options |= {"accumulate_grad_batches": accumulate}

    expected = fit(uninterrupted, pairs, first, **options)
    found = fit(resumed, pairs, second, resume=tmp_path / f"step={step}.ckpt", **options)

    assert expected.global_step == found.global_step == (9 if accumulate == 1 else 6)
    wanted = weights_of(uninterrupted)
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights_of(resumed).items())


def test_warm_up_takes_the_number_of_steps_from_max_steps(model: Path, pairs: Path) -> None:
    rates: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = streamed_module(model, warmup_fraction=0.4)
    fit(module, pairs, Watch(), max_epochs=-1, max_steps=10)

    assert rates == pytest.approx([5e-3 * x for x in (0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "cached"}, r"data.streaming keeps none; set it to live"),
        ({"warmup_fraction": 0.1}, r"\(not enough with data.streaming\) or trainer.max_steps"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(
    model: Path, pairs: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(streamed_module(model, **settings), pairs)
