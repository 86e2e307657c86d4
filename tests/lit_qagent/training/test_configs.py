"""Every shipped training config builds and takes a step on a shrunken model of its kind."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

from lit_qagent.training.module import StepDPO
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model

CONFIGS = Path(__file__).parents[3] / "configs"
KINDS = {
    "fit_phi15": "phi",
    "fit_phi3_mini": "phi3",
    "fit_llama31_8b": "llama",
    "fit_qwen3_8b": "qwen3",
}


def shrunken(name: str, folder: Path) -> Path:
    """Write the config with a tiny model of its kind, other pairs and no side effects."""
    values: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    model = save_tiny_model(folder / "model", kind=KINDS[name])
    values["model"]["backbone"] |= {"name": str(model), "dtype": "float32"}
    values["model"]["max_length"] = 1024
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
    cli.trainer.fit(cli.model, cli.datamodule)

    # 10 tasks of 2 pairs are at most 16 pairs a batch, and one step of up to 64.
    assert cli.trainer.global_step == 1
    assert cli.model.shares_prefixes
