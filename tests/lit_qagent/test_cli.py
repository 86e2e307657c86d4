"""Bad input at the command line of LightningCLI, in a real process where it matters."""

import subprocess
import sys
from pathlib import Path

import pytest

from lit_qagent.__main__ import main

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
        ([*FIT, "--model.lora.rnak", "3"], "did you mean 'model.lora.rank'"),
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
