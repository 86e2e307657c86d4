"""Training end to end on the tiny model: what it learns, saves, resumes and refuses."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_qagent.core.errors import CheckpointError, ConfigError
from lit_qagent.data.batch import collate_sequences
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.export import describe, load_q_model, save_checkpoint
from lit_qagent.models.q_heads import BothQHeads, ImplicitQHead, QHead, ScalarQHead
from lit_qagent.models.specs import BackboneSpec, LoraSpec
from lit_qagent.training.callbacks import ExportCheckpoint
from lit_qagent.training.losses import LossSpec
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import Watch, adamw, make_module, make_trainer, weights_of
from tests.tiny_q_model import shake_adapter, tiny_spec


def make_data(pairs: Path) -> PreferenceDataModule:
    return PreferenceDataModule(pairs, batch_size=4, valid_fraction=0.1, test_fraction=0.1)


def test_training_learns_which_action_is_better(model: Path, pairs: Path) -> None:
    trainer = make_trainer(max_epochs=12)

    trainer.fit(make_module(model), make_data(pairs))

    metrics = trainer.callback_metrics
    names = {"loss", "accuracy", "margin", "rank_correlation"}
    details = {"kendall_tau", "calibration_error", "length_correlation"}
    for part in ("low", "middle"):  # of two pairs no third is high
        details |= {f"accuracy_by_margin/{part}", f"accuracy_by_visits/{part}"}
    for depth in range(2):
        details |= {f"accuracy_by_depth/{depth:02d}", f"kendall_tau_by_depth/{depth:02d}"}
    found = {name for name in metrics if name.startswith("val/")}
    assert found == {f"val/{name}" for name in names | details}
    assert metrics["train/loss"] < 0.4  # log 2 = 0.69 untrained
    assert metrics["train/accuracy"] == 1.0


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        (ScalarQHead(regression=0.05), LossSpec()),
        (BothQHeads(beta=0.1), LossSpec(name="hinge")),
        (ImplicitQHead(beta=0.1, reduction="mean"), LossSpec(name="ipo")),
    ],
    ids=["scalar", "both", "mean-ipo"],
)
def test_other_heads_and_losses_learn_too_and_survive_export(
    model: Path, pairs: Path, tmp_path: Path, head: QHead, loss: LossSpec
) -> None:
    module = make_module(model, q_head=head, loss=loss)
    trainer = make_trainer(ExportCheckpoint(tmp_path / "out"), max_epochs=12)

    trainer.fit(module, make_data(pairs))

    assert trainer.callback_metrics["train/accuracy"] == 1.0
    assert module.q_model is not None
    exported = load_q_model(tmp_path / "out", tiny_spec(model))
    batch = collate_sequences([[TokenSequence([5, 6, 7], [8, 9])]])
    assert torch.equal(exported(batch), module.q_model(batch))
    assert exported(batch).item() != 0


def test_validate_and_test_measure_their_own_split(model: Path, pairs: Path) -> None:
    trainer, module, data = make_trainer(), make_module(model), make_data(pairs)

    [validated] = trainer.validate(module, data, verbose=False)
    [tested] = trainer.test(module, data, verbose=False)

    # The fresh adapter changes nothing: Q is 0, the loss log 2, every comparison a tie.
    for prefix, found in (("val", validated), ("test", tested)):
        assert found[f"{prefix}/loss"] == pytest.approx(0.693147, abs=1e-5)
        assert found[f"{prefix}/accuracy"] == 0.5


def test_only_the_adapter_changes(model: Path, pairs: Path) -> None:
    module = make_module(model)
    module.configure_model()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}

    make_trainer(max_epochs=1).fit(module, make_data(pairs))

    changed = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all("lora_" in name for name in changed)


def test_the_learning_rate_rises_then_stays(model: Path, pairs: Path) -> None:
    rates: list[float] = []

    class WatchRate(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    make_trainer(WatchRate()).fit(make_module(model, warmup_fraction=0.4), make_data(pairs))

    # 9 training tasks of 2 pairs in batches of 4 are 5 steps an epoch; 0.4 of 10 is 4.
    assert rates == pytest.approx([5e-3 * x for x in (0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1)])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("step", "limit"),
    [(3, 5), (5, 5), (7, 5), (3, 3)],
    ids=["mid-epoch", "epoch-end", "second-epoch", "end-of-a-limited-epoch"],
)
def test_a_resumed_run_equals_one_that_was_never_interrupted(
    model: Path, pairs: Path, tmp_path: Path, step: int, limit: int
) -> None:
    uninterrupted, resumed = make_module(model), make_module(model)
    first, second = (
        make_trainer(
            ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1),
            limit_train_batches=limit,
        )
        for _ in range(2)
    )

    first.fit(uninterrupted, make_data(pairs))
    second.fit(
        resumed, make_data(pairs), ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=True
    )

    assert first.global_step == second.global_step == 2 * limit
    expected, found = weights_of(uninterrupted), weights_of(resumed)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    moments = [trainer.optimizers[0].state_dict()["state"] for trainer in (first, second)]
    for key, state in moments[0].items():
        assert torch.equal(moments[1][key]["exp_avg"], state["exp_avg"])
    assert second.callback_metrics["val/loss"] == first.callback_metrics["val/loss"]


def test_the_logged_loss_is_the_mean_of_a_batch_whatever_the_others_of_its_step_hold(
    model: Path, pairs: Path
) -> None:
    watch = Watch()
    still = make_module(model, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))

    make_trainer(watch, accumulate_grad_batches=4).fit(still, make_data(pairs))

    # The fresh adapter changes nothing: the loss of every pair is log 2.
    assert [batch.num_pairs for batch in watch.batches] == [4, 4, 4, 4, 2] * 2
    assert watch.losses == pytest.approx([0.693147] * 10, abs=1e-5)


class Interrupt(pl.Callback):
    """Breaks one training step after its backward pass, before the weights change."""

    def __init__(self, batch: int, error: type[BaseException]) -> None:
        self.countdown = batch
        self.error = error

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.countdown -= 1
        if self.countdown < 0:
            raise self.error


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:Detected KeyboardInterrupt")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(("batch", "accumulate"), [(2, 1), (5, 1), (6, 1), (3, 2), (4, 2), (6, 2)])
def test_a_run_that_broke_inside_a_step_loses_nothing(
    model: Path,
    pairs: Path,
    tmp_path: Path,
    batch: int,
    accumulate: int,
    error: type[BaseException],
) -> None:
    def run(*callbacks: pl.Callback) -> tuple[StepDPO, pl.Trainer]:
        saving = ModelCheckpoint(tmp_path, "last", save_on_exception=True)
        trainer = make_trainer(saving, *callbacks, accumulate_grad_batches=accumulate)
        return make_module(model), trainer

    expected, trainer = run()
    trainer.fit(expected, make_data(pairs))
    broken, trainer = run(Interrupt(batch, error))
    (tmp_path / "last.ckpt").unlink()
    with pytest.raises((error, SystemExit)):
        trainer.fit(broken, make_data(pairs))
    resumed, trainer = run()
    trainer.fit(resumed, make_data(pairs), ckpt_path=tmp_path / "last.ckpt", weights_only=True)

    assert trainer.global_step == 2 * -(-5 // accumulate)
    for name, weight in weights_of(expected).items():
        assert torch.equal(weights_of(resumed)[name], weight)


def test_a_ckpt_holds_trained_weights_plain_values_and_lineage(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    module = make_module(model)
    make_trainer(ModelCheckpoint(tmp_path, "last")).fit(module, make_data(pairs))

    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)

    assert saved["state_dict"].keys() == weights_of(module).keys()
    assert len(saved["optimizer_states"][0]["state"]) == len(weights_of(module)) == 28
    assert saved["hyper_parameters"]["backbone"]["name"] == str(model)
    assert saved["lineage"]["task_ids"] == sorted(f"task-{task}" for task in range(40))
    assert 0 <= saved["metrics"]["val/accuracy"] <= 1


def test_a_ckpt_loads_without_arguments(model: Path, pairs: Path, tmp_path: Path) -> None:
    module = make_module(model, q_head=ImplicitQHead(beta=0.7), max_length=600)
    make_trainer(ModelCheckpoint(tmp_path, "last")).fit(module, make_data(pairs))

    loaded = StepDPO.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)

    assert loaded.max_length == 600
    assert loaded.lineage == module.lineage
    assert loaded.q_model is not None
    assert loaded.q_model.head.settings() == {"beta": 0.7, "reduction": "sum"}
    expected, found = weights_of(module), weights_of(loaded)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_ckpt_of_another_adapter_is_refused(model: Path, pairs: Path, tmp_path: Path) -> None:
    make_trainer(ModelCheckpoint(tmp_path, "last")).fit(make_module(model), make_data(pairs))
    other = StepDPO(tiny_spec(model), LoraSpec(rank=3), optimizer=adamw)

    with pytest.raises(CheckpointError, match=r"do not fit the model: 56 differ, .* lora"):
        make_trainer().fit(
            other, make_data(pairs), ckpt_path=tmp_path / "last.ckpt", weights_only=True
        )


def test_missing_weights_are_an_error_frozen_ones_are_not(model: Path) -> None:
    module = make_module(model)
    module.configure_model()
    weights = weights_of(module)

    module.load_state_dict(weights)
    name = next(iter(weights))
    with pytest.raises(RuntimeError, match=r"weights missing: \['q_model.*unexpected: \['x'\]"):
        module.load_state_dict({"x": weights.pop(name), **weights})


def export(folder: Path, module: StepDPO) -> Path:
    """Write a checkpoint with a random adapter and a lineage."""
    module.configure_model()
    assert module.q_model is not None
    shake_adapter(module)
    lineage = {"pairs_hash": "earlier", "task_ids": ["old-task"]}
    card = describe(module.q_model, max_length=700, lineage=lineage, metrics={})
    save_checkpoint(folder, module.q_model, card)
    return folder


def test_training_goes_on_from_a_checkpoint_and_remembers_its_tasks(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    start = make_module(model, q_head=ImplicitQHead(beta=0.5))
    module = make_module(model, checkpoint=export(tmp_path / "start", start))
    module.configure_model()
    before = {name: weight.clone() for name, weight in weights_of(module).items()}

    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(start).items())
    make_trainer(max_epochs=1).fit(module, make_data(pairs))

    assert module.max_length == 700
    assert module.q_model is not None
    assert module.q_model.head.settings()["beta"] == 0.5
    assert any(not torch.equal(weight, before[name]) for name, weight in weights_of(module).items())
    assert "old-task" in module.lineage["task_ids"]
    assert "task-0" in module.lineage["task_ids"]
    assert module.lineage["earlier_pairs"] == ["earlier"]


def test_without_a_backbone_the_checkpoints_is_held_as_in_training(
    model: Path, tmp_path: Path
) -> None:
    folder = export(tmp_path / "start", make_module(model))

    held = StepDPO(checkpoint=folder).hparams["backbone"]

    assert (held["name"], held["dtype"]) == ("tiny-model", "float32")
    assert StepDPO().hparams["backbone"] == asdict(BackboneSpec())


def test_a_checkpoints_head_goes_before_the_given_one_and_says_so(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = make_module(model, q_head=ImplicitQHead(beta=0.5))
    folder = export(tmp_path / "start", start)

    with caplog.at_level(logging.WARNING):
        make_module(model, checkpoint=folder).configure_model()
    assert "Q-head" not in caplog.text  # the default was not given

    with caplog.at_level(logging.WARNING):
        make_module(model, checkpoint=folder, q_head=ImplicitQHead(beta=0.7)).configure_model()
    assert "the checkpoint's Q-head ('implicit', {'beta': 0.5" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepDPO(warmup_fraction=1.0), "warmup_fraction must be in .* got 1.0"),
        (lambda: StepDPO(max_length=1).renderer, "max_length must be >= 2"),
        (lambda: StepDPO().scorer(), "call configure_model first"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_missing_checkpoint_is_refused_before_any_weights_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no q_model.yaml; give the folder"):
        StepDPO(BackboneSpec(name="no/model"), checkpoint=tmp_path)


def test_a_limit_beyond_the_models_context_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length is 4096, .* knows 2048 positions; lower it"):
        make_module(model, max_length=4096).configure_model()


def test_warm_up_without_an_end_is_refused(model: Path, pairs: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs to know the number of steps; set trainer.max_"):
        make_trainer(max_epochs=-1, max_steps=-1).fit(make_module(model), make_data(pairs))
