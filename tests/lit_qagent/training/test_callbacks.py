"""What training leaves behind: the best weights as a folder, config and lineage in MLflow."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from safetensors.torch import load_file

from lit_qagent.core.errors import ConfigError
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.export import load_q_model, read_checkpoint
from lit_qagent.models.q_heads import BothQHeads, ImplicitQHead, QHead, ScalarQHead
from lit_qagent.training.callbacks import ExportCheckpoint, SaveConfig, WriteMetrics
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import fit, make_module, make_trainer
from tests.tiny_q_model import tiny_spec

HEADS = [ImplicitQHead(), ScalarQHead(), BothQHeads()]


def adapter_weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach() for name, p in module.named_parameters() if "lora_" in name]


def plain_name(name: str) -> str:
    """The name in the Q-model, where the module may have another for a part."""
    return name.removeprefix("q_model.").removeprefix("_")


def learnt_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Adapter and head, by their names in the Q-model."""
    named = {plain_name(name): p.detach() for name, p in module.named_parameters()}
    return {n: p for n, p in named.items() if "lora_" in n or n.startswith("head.")}


def test_the_last_weights_are_exported_where_nothing_is_monitored(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    module = make_module(model)

    trainer = fit(module, pairs, ExportCheckpoint(tmp_path / "out"))

    exported = load_q_model(tmp_path / "out", tiny_spec(model))
    assert all(map(torch.equal, adapter_weights(exported), adapter_weights(module)))
    card = read_checkpoint(tmp_path / "out")
    assert card.lineage == module.lineage
    assert card.metrics["val/loss"] == float(trainer.callback_metrics["val/loss"])


def test_weights_can_be_exported_in_half_the_bytes(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    module = make_module(model, q_head=ScalarQHead())

    fit(module, pairs, ExportCheckpoint(tmp_path / "out", dtype="bfloat16"))

    for file in ("adapter/adapter_model.safetensors", "q_head.safetensors"):
        saved = load_file(tmp_path / "out" / file)
        assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    exported = learnt_weights(load_q_model(tmp_path / "out", tiny_spec(model)))
    assert {weight.dtype for weight in exported.values()} == {torch.float32}
    for name, trained in learnt_weights(module).items():
        assert torch.equal(exported[name], trained.bfloat16().float())


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_the_best_weights_are_exported_with_their_metrics_and_the_module_keeps_its_last(
    model: Path, pairs: Path, tmp_path: Path, head: QHead
) -> None:
    module = make_module(model, q_head=head)
    # The worst training loss is that of the first step, when nothing was learnt.
    best = ModelCheckpoint(
        tmp_path, "best", monitor="train/loss", mode="max", every_n_train_steps=1
    )

    fit(module, pairs, best, ExportCheckpoint(tmp_path / "out"))

    saved = torch.load(best.best_model_path, weights_only=True)
    exported = load_q_model(tmp_path / "out", tiny_spec(model))
    found, last = learnt_weights(exported), learnt_weights(module)
    expected = {plain_name(name): weight for name, weight in saved["state_dict"].items()}
    assert found.keys() == last.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for part in {name.split(".")[0] for name in expected}:
        names = [name for name in expected if name.startswith(part)]
        assert not all(torch.equal(found[name], last[name]) for name in names)
    assert read_checkpoint(tmp_path / "out").metrics == saved["metrics"]


def test_export_of_another_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="works with StepDPO only; remove the callback"):
        ExportCheckpoint(tmp_path).on_fit_end(pl.Trainer(logger=False), pl.LightningModule())


def test_metrics_of_test_are_written_as_json(model: Path, pairs: Path, tmp_path: Path) -> None:
    callback = WriteMetrics(tmp_path / "new" / "metrics.json")
    trainer = make_trainer(callback)

    [found] = trainer.test(make_module(model), PreferenceDataModule(pairs), verbose=False)

    written = json.loads(callback.path.read_text(encoding="utf-8"))
    assert written == pytest.approx(found)
    assert set(written) >= {f"test/{n}" for n in ("loss", "accuracy", "margin", "rank_correlation")}


CONFIG = """
seed_everything: 42
trainer:
  accelerator: cpu
  max_epochs: 1
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  logger:
    class_path: lightning.pytorch.loggers.MLFlowLogger
    init_args:
      experiment_name: test
      tracking_uri: sqlite:///{folder}/mlflow.db
      artifact_location: {folder}/artifacts
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        dirpath: {folder}/fit
        monitor: val/accuracy
        mode: max
        filename: best
    - class_path: lit_qagent.training.callbacks.LogLineage
    - class_path: lit_qagent.training.monitors.LogSpeed
    - class_path: lit_qagent.training.monitors.LogReliability
    - class_path: lit_qagent.training.callbacks.ExportCheckpoint
      init_args: {{folder: {folder}/checkpoint}}
model:
  backbone: {{name: {model}, dtype: float32}}
  lora: {{rank: 2, target_modules: [q_proj, v_proj]}}
  q_head:
    class_path: ImplicitQHead
    init_args: {{beta: 0.2}}
  optimizer:
    class_path: torch.optim.AdamW
    init_args: {{lr: 1e-3, weight_decay: 0.0}}
data:
  class_path: PreferenceDataModule
  init_args:
    pairs: {pairs}
    batch_size: 4
    sharing: batch
"""


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # mlflow and its database library warn of themselves
def test_fit_from_yaml_leaves_config_lineage_and_metrics_in_mlflow(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    config = tmp_path / "fit.yaml"
    config.write_text(CONFIG.format(folder=tmp_path, model=model, pairs=pairs), encoding="utf-8")

    cli = LightningCLI(
        StepDPO,
        None,
        args=["fit", "--config", str(config)],
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        auto_configure_optimizers=False,
    )

    run = cli.trainer.logger.experiment.get_run(cli.trainer.logger.run_id)  # type: ignore[union-attr]
    artifacts = tmp_path / "artifacts" / run.info.run_id / "artifacts"
    saved: dict[str, Any] = yaml.safe_load((artifacts / "config" / "fit.yaml").read_text())
    lineage = json.loads((artifacts / "lineage.json").read_text())
    assert saved["model"]["q_head"]["init_args"]["beta"] == 0.2
    assert lineage["lineage"]["task_ids"] == sorted(f"task-{task}" for task in range(40))
    assert lineage["counts"] | {"rendered": 22, "train_pairs": 18} == lineage["counts"]
    assert {"train/loss", "val/accuracy", "val/rank_correlation", "data/too_long"} <= set(
        run.data.metrics
    )
    metrics = run.data.metrics
    assert metrics["speed/sharing"] > 2  # the batch is one row, and pairs share their prompts
    assert metrics["speed/padding"] == 0
    assert metrics["speed/tokens_per_s"] > 0
    assert metrics["speed/memory_gb"] > 0.1
    assert (artifacts / "reliability" / "val_step_5.png").stat().st_size > 1000
    assert run.data.params["optimizer/lr"] == "0.001"
    assert read_checkpoint(tmp_path / "checkpoint").head_settings["beta"] == 0.2
