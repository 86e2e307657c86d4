"""Checkpoints that a strategy writes as folders, and the weights of which it loads itself."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.export import load_q_model, read_checkpoint
from lit_qagent.training.callbacks import ExportCheckpoint
from tests.lit_qagent.training.parts import make_module, make_trainer, weights_of
from tests.tiny_q_model import tiny_spec

_CONVERT = "lightning.pytorch.utilities.deepspeed.convert_zero_checkpoint_to_fp32_state_dict"


class FolderStrategy(SingleDeviceStrategy):
    """Keeps checkpoints as Lightning's DeepSpeedStrategy does: a folder, the weights apart."""

    lightning_restore_optimizer = False

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: Any,  # noqa: ANN401
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        assert self.lightning_module is not None
        folder = Path(filepath)
        folder.mkdir(parents=True, exist_ok=True)
        apart = ("state_dict", "optimizer_states")
        client = {name: value for name, value in checkpoint.items() if name not in apart}
        torch.save(client, folder / "client.pt")
        torch.save(self.lightning_module.state_dict(), folder / "weights.pt")

    def load_checkpoint(self, checkpoint_path: Any, *_: Any, **__: Any) -> dict[str, Any]:  # noqa: ANN401
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(torch.load(Path(checkpoint_path) / "weights.pt"))
        client: dict[str, Any] = torch.load(Path(checkpoint_path) / "client.pt")
        return client

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """The weights were loaded with the folder."""


def convert(folder: Path, output_file: Path) -> dict[str, Any]:
    """Return what DeepSpeed's script does: the client state, and all weights, frozen ones too."""
    weights: dict[str, Any] = torch.load(Path(folder) / "weights.pt")
    return {**torch.load(Path(folder) / "client.pt"), "state_dict": weights}


def fit(
    model: Path,
    pairs: Path,
    *callbacks: pl.Callback,
    epochs: int = 2,
    strategy: Any = "auto",  # noqa: ANN401
    ckpt_path: str | None = None,
) -> dict[str, torch.Tensor]:
    module = make_module(
        model,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        warmup_fraction=0,
    )
    trainer = make_trainer(*callbacks, strategy=strategy, max_epochs=epochs)
    trainer.fit(module, PreferenceDataModule(pairs, batch_size=4), ckpt_path=ckpt_path)
    return weights_of(module)


def exported(folder: Path, model: Path) -> dict[str, torch.Tensor]:
    found = load_q_model(folder, tiny_spec(model), trainable=True)
    return {f"q_model.{name}": weight for name, weight in weights_of(found).items()}


def assert_equal(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def folder_strategy() -> FolderStrategy:
    return FolderStrategy(device=torch.device("cpu"))


def first_is_best(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "best", monitor="step", mode="min", every_n_train_steps=1)


def test_the_best_weights_of_a_deepspeed_folder_are_exported(
    model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_CONVERT, convert)
    callbacks = first_is_best(tmp_path), ExportCheckpoint(tmp_path / "out")

    last = fit(model, pairs, *callbacks, strategy=folder_strategy())

    saved = convert(tmp_path / "best.ckpt", tmp_path)
    assert saved["global_step"] == 1
    assert len(saved["state_dict"]) > len(last)
    found = exported(tmp_path / "out", model)
    assert_equal(found, {name: saved["state_dict"][name] for name in last})
    assert not torch.equal(*(torch.cat([w.flatten() for w in x.values()]) for x in (found, last)))
    assert read_checkpoint(tmp_path / "out").metrics == saved["metrics"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_run_goes_on_where_the_strategy_has_loaded_the_weights(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    first, second = (ModelCheckpoint(tmp_path, "last") for _ in range(2))
    fit(model, pairs, first, epochs=1, strategy=folder_strategy())

    path = str(tmp_path / "last.ckpt")
    resumed = fit(model, pairs, second, strategy=folder_strategy(), ckpt_path=path)

    assert_equal(resumed, fit(model, pairs))


class AsShards(pl.Callback):
    """Makes the best checkpoint a folder of shards, as FSDP2 writes it if asked to."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(trainer.checkpoint_callback, ModelCheckpoint)
        path = Path(trainer.checkpoint_callback.best_model_path)
        saved = torch.load(path, weights_only=True)
        path.unlink()
        weights, [state] = saved.pop("state_dict"), saved.pop("optimizer_states")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # there is one process only
            save_shards({"state_dict": weights, "optimizer_0": state}, checkpoint_id=path)
        torch.save(saved, path / "meta.pt")


def test_the_best_weights_of_a_folder_of_shards_are_exported(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    first = fit(model, pairs, first_is_best(tmp_path / "a"), ExportCheckpoint(tmp_path / "file"))
    second = fit(
        model,
        pairs,
        first_is_best(tmp_path / "b"),
        AsShards(),
        ExportCheckpoint(tmp_path / "shards"),
    )

    assert_equal(first, second)
    assert (tmp_path / "b" / "best.ckpt").is_dir()
    assert_equal(exported(tmp_path / "shards", model), exported(tmp_path / "file", model))
    cards = [read_checkpoint(tmp_path / name).metrics for name in ("shards", "file")]
    assert cards[0] == cards[1]
