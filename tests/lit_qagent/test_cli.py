"""Bad input at the command line of LightningCLI, in a real process where it matters."""

import csv
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_qagent.__main__ import main
from lit_qagent.core.errors import ConfigError
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model

FIT = ["fit", "--config", "configs/fit_quickstart.yaml"]
PREDICT = ["predict", "--config", "configs/predict_quickstart.yaml"]

pytestmark = pytest.mark.integration  # importing lightning, peft and mlflow takes seconds


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int) -> str:
    try:
        assert main(arguments) == status
    except SystemExit as error:
        assert error.code == status  # noqa: PT017 (the parser exits by itself)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*FIT, "--model.lora.rnak", "3"], "did you mean 'rank'"),
        ([*FIT, "--trainer.max_epoch", "3"], "did you mean 'trainer.max_epochs'"),
        ([*FIT, "--model.max_length", "many"], "Given value: many"),
        ([*FIT, "--model.backbone.dtype", "int3"], "int3"),
        ([*PREDICT, "--data.tasks.num_task", "3"], "num_task"),
    ],
)
def test_a_wrong_option_or_type_is_refused_and_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _fails(arguments, capsys, 2)


def test_an_unknown_key_in_a_config_is_refused_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "fit.yaml"
    config.write_text(Path(FIT[2]).read_text().replace("  lora: {rank", "  lora: {rnak"))
    printed = _fails(["fit", "--config", str(config)], capsys, 2)
    assert "rnak" in printed
    assert "rank" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [*FIT, "--data.pairs", "nowhere", "--trainer.logger", "false"],
            "nowhere",
        ),
        ([*PREDICT, "--data.tasks.num_tasks", "0"], "num_tasks must be >= 1, got 0"),
        (
            [*PREDICT, "--model.checkpoint", "no-checkpoint", "--trainer.logger", "false"],
            "no-checkpoint",
        ),
    ],
)
def test_what_is_missing_is_one_message_without_traceback(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lit_qagent", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "is damaged or no .ckpt of training"),
        (b"no tensors", "is damaged or no .ckpt of training"),
        (b"PK\x03\x04 cut off", "is damaged or no .ckpt of training"),
    ],
)
def test_a_ckpt_that_is_missing_or_damaged_is_named_with_the_remedy(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.ckpt"
    if content is not None:
        path.write_bytes(content)

    printed = _fails([*FIT, "--trainer.logger", "false", "--ckpt_path", str(path)], capsys, 1)

    assert printed.startswith("error: ckpt_path: ")
    assert str(path) in printed
    assert message in printed
    assert "leave ckpt_path out to start anew" in printed


def test_a_checkpoint_of_a_registry_is_left_to_lightning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(trainer: Any, *_: object, ckpt_path: str, **__: object) -> None:  # noqa: ANN401
        raise ConfigError(f"asked for {ckpt_path}")

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", fit)
    path = "registry:shopping:version:2"

    printed = _fails([*FIT, "--trainer.logger", "false", "--ckpt_path", path], capsys, 1)

    assert printed == f"error: asked for {path}\n"


LONG_FIT = """
trainer:
  accelerator: cpu
  max_epochs: 100000
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  limit_val_batches: 0
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {{save_dir: {folder}, flush_logs_every_n_steps: 1}}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        dirpath: {folder}/fit
        filename: last
        enable_version_counter: false
        save_on_exception: true
        every_n_epochs: 100000
model:
  backbone: {{name: {folder}/model, dtype: float32}}
  warmup_fraction: 0.0
data:
  class_path: PreferenceDataModule
  init_args: {{pairs: {pairs}, batch_size: 4}}
"""


def _logged_steps(folder: Path, version: int) -> list[int]:
    path = folder / "lightning_logs" / f"version_{version}" / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("step")]


def test_ctrl_c_in_fit_keeps_the_weights_and_the_printed_command_goes_on(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    pairs = write_pairs(tmp_path, make_pairs(11))
    config = tmp_path / "fit.yaml"
    config.write_text(LONG_FIT.format(folder=tmp_path, pairs=pairs))
    command = [sys.executable, "-m", "lit_qagent", "fit", "--config", str(config)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while len(_logged_steps(tmp_path, 0)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=15)

    assert process.returncode == 130
    assert "Traceback" not in said
    saved = torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["global_step"]
    assert saved >= 3
    printed = shlex.split(said.strip().splitlines()[-1])
    assert printed == ["python", *command[1:], "--ckpt_path", "last"]

    stop = ["--trainer.max_steps", str(saved + 2)]
    subprocess.run([sys.executable, *printed[1:], *stop], check=True, capture_output=True)
    steps = _logged_steps(tmp_path, 1)
    # Two more steps; Lightning may count the first one late where it was stopped within a step.
    assert steps[0] in (saved, saved + 1)
    assert steps == [steps[0], steps[0] + 1]
