"""Every shipped training config builds and takes a step on a shrunken model of its kind."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies import ModelParallelStrategy

from lit_qagent.data.batch import PairBatch
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import make_trainer
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_spec

CONFIGS = Path(__file__).parents[3] / "configs"
# What of the real model's configuration bears on which tokens see and rotate which.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "fit_phi15": ("phi", {"max_position_embeddings": 2048, "partial_rotary_factor": 0.5}),
    "fit_phi3_mini": ("phi3", {"max_position_embeddings": 4096, "sliding_window": 2047}),
    "fit_llama31_8b": (
        "llama",
        {
            "max_position_embeddings": 131072,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "fit_qwen3_8b": (
        "qwen3",
        {
            "max_position_embeddings": 40960,
            "sliding_window": None,
            "use_sliding_window": False,
            "max_window_layers": 36,
        },
    ),
}


class Branches(pl.Callback):
    """Keeps whether the rows of the batches were shared."""

    def __init__(self) -> None:
        self.found: list[bool] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: PairBatch, batch_idx: int
    ) -> None:
        self.found.append(batch.tokens.is_branched)


def shrunken(name: str, folder: Path) -> Path:
    """Write the config with a tiny model of its kind, other pairs and no side effects."""
    values: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    kind, of_the_real_one = KINDS[name]
    model = save_tiny_model(folder / "model", kind=kind, **of_the_real_one)
    values["model"]["backbone"] |= {"name": str(model), "dtype": "float32"}
    values["data"]["init_args"]["pairs"] = str(write_pairs(folder / "pairs", make_pairs(12)))
    values["trainer"] |= {"logger": False, "callbacks": [], "accelerator": "cpu"}
    values["trainer"] |= {"enable_progress_bar": False, "enable_checkpointing": False}
    path = folder / "fit.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_a_config_trains_a_shrunken_model(name: str, tmp_path: Path) -> None:
    cli = LightningCLI(
        StepDPO,
        None,
        args=["--config", str(shrunken(name, tmp_path))],
        run=False,
        save_config_callback=None,
        auto_configure_optimizers=False,
    )

    assert isinstance(cli.trainer, pl.Trainer)
    branches = Branches()
    cli.trainer.callbacks.append(branches)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, cli.datamodule)

    # 10 tasks of 2 pairs are at most 16 pairs a batch, and one step of up to 64.
    assert cli.trainer.global_step == 1
    assert branches.found
    assert all(branches.found)


MONITORED = sorted(path.stem for path in CONFIGS.glob("fit_*.yaml"))


@pytest.mark.parametrize("name", MONITORED)
def test_a_config_keeps_the_last_weights_and_exports_the_best(name: str) -> None:
    values: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    callbacks = [
        (callback["class_path"].rsplit(".", 1)[1], callback.get("init_args", {}))
        for callback in values["trainer"].get("callbacks", [])
    ]
    saved = {found["filename"]: found for kind, found in callbacks if kind == "ModelCheckpoint"}
    exports = [found["folder"] for kind, found in callbacks if kind == "ExportCheckpoint"]

    assert len(exports) == 1
    assert saved["last"]["save_on_exception"] is True
    if name == "fit_quickstart":  # its published numbers are those of the last weights
        assert saved.keys() == {"last"}
        return
    assert saved.keys() == {"last", "best"}
    assert (saved["best"]["monitor"], saved["best"]["mode"]) == ("val/accuracy", "max")
    assert saved["best"]["dirpath"] == saved["last"]["dirpath"]
    stops = [found for kind, found in callbacks if kind == "EarlyStopping"]
    # After the last epoch there is nothing to stop, and the first has none to be compared with.
    assert [found["monitor"] for found in stops] == (
        ["val/accuracy"] if values["trainer"]["max_epochs"] > 2 else []
    )
    assert all(1 + found["patience"] < values["trainer"]["max_epochs"] for found in stops)


def test_a_run_of_three_epochs_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    values: dict[str, Any] = yaml.safe_load((CONFIGS / "fit_webshop.yaml").read_text())
    callbacks = values["trainer"]["callbacks"]
    [stop] = [c["init_args"] for c in callbacks if c["class_path"].endswith("EarlyStopping")]
    trainer = make_trainer(EarlyStopping(**stop), max_epochs=values["trainer"]["max_epochs"])
    module = StepDPO(
        tiny_spec(save_tiny_model(tmp_path / "model")),
        reference="live",
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    )

    trainer.fit(module, PreferenceDataModule(write_pairs(tmp_path / "pairs", make_pairs(7))))

    assert (trainer.current_epoch, trainer.max_epochs) == (2, 3)


# The paper's: context by model, 64 pairs a step, beta of HotPotQA; a LoRA's learning rate is 50 to
# 200 times the 1e-6 of full fine-tuning.
@pytest.mark.parametrize(
    ("name", "model", "context"),
    [
        ("fit_phi15", "microsoft/phi-1_5", 2048),  # it knows no more
        ("fit_phi3_mini", "microsoft/Phi-3-mini-4k-instruct", 4096),
        ("fit_llama31_8b", "meta-llama/Llama-3.1-8B-Instruct", 4096),
        ("fit_qwen3_8b", "Qwen/Qwen3-8B", 4096),
    ],
)
def test_a_config_has_the_papers_hyper_parameters(name: str, model: str, context: int) -> None:
    values: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    trainer, settings, data = values["trainer"], values["model"], values["data"]["init_args"]
    optimizer = settings["optimizer"]

    assert settings["backbone"] == {
        "name": model,
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
    }
    assert settings["max_length"] == context
    assert settings["q_head"]["init_args"] == {"beta": 0.05}
    assert optimizer["class_path"] == "torch.optim.AdamW"
    assert optimizer["init_args"]["weight_decay"] == 0
    assert 50e-6 <= float(optimizer["init_args"]["lr"]) <= 200e-6
    assert settings["warmup_fraction"] == 0.1
    assert settings.get("loss", {"name": "sigmoid"})["name"] == "sigmoid"
    assert (trainer["max_epochs"], data["batch_size"] * trainer["accumulate_grad_batches"]) == (
        1,
        64,
    )


def build_with(*arguments: str) -> LightningCLI:
    return LightningCLI(
        StepDPO,
        None,
        args=list(arguments),
        run=False,
        save_config_callback=None,
        auto_configure_optimizers=False,
    )


def test_the_fsdp2_overlay_is_laid_over_a_config(tmp_path: Path) -> None:
    config, overlay = shrunken("fit_llama31_8b", tmp_path), CONFIGS / "strategy_fsdp2.yaml"

    cli = build_with("--config", str(config), "--config", str(overlay))

    assert isinstance(cli.trainer.strategy, ModelParallelStrategy)
    assert (cli.trainer.num_devices, cli.trainer.accumulate_grad_batches) == (2, 2)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_the_deepspeed_overlay_trains_with_another_strategy_in_its_place(tmp_path: Path) -> None:
    config, overlay = shrunken("fit_llama31_8b", tmp_path), CONFIGS / "strategy_deepspeed.yaml"
    assert yaml.safe_load(overlay.read_text())["trainer"]["strategy"] == "deepspeed_stage_2"
    one = ("--trainer.strategy", "auto", "--trainer.devices", "1")  # DeepSpeed needs GPUs

    cli = build_with("--config", str(config), "--config", str(overlay), *one)
    cli.trainer.fit(cli.model, cli.datamodule)

    assert cli.trainer.global_step == 1
