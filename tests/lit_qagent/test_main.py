import subprocess
import sys
import time

import pytest

from lit_qagent.__main__ import main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for command in ("quickstart", "compare", "doctor", "fit", "validate", "test", "predict"):
        assert f"  {command}" in printed


@pytest.mark.parametrize(
    ("typed", "meant"), [("fti", "'fit'"), ("colect", "'python -m data_collection collect'")]
)
def test_an_unknown_command_is_refused_with_the_nearest_one(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed]) == 2
    assert f"no command {typed!r}; did you mean {meant}?" in capsys.readouterr().err


def test_help_imports_nothing_heavy_and_answers_at_once() -> None:
    code = (
        "import sys; from lit_qagent.__main__ import main; main(['--help']); "
        "print([m for m in ('torch', 'lightning', 'transformers', 'vllm') if m in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - began)
        assert done.stdout.rstrip().endswith("[]")
    assert min(seconds) < 0.5
