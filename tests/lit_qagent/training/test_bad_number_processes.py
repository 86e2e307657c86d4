"""A number that is none in one of two processes stops both; neither waits for the other."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model

_SCRIPT = Path(__file__).with_name("bad_number_fit.py")
_ROOT = Path(__file__).parents[3]


def run_both(*arguments: object) -> None:
    """Run the script; where it hangs, end it and the process that it started."""
    process = subprocess.Popen(
        [sys.executable, str(_SCRIPT), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        pytest.fail("a process waits for one that has stopped")
    assert process.returncode == 0, errors[-3000:]


@pytest.mark.integration
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("strategy", "what", "bad_rank", "named", "other"),
    [
        (
            "ddp",
            "loss",
            1,
            r"the loss of 1 of 2 pairs is not finite: task task-\d+ tree tree-\d+ depth \d;",
            "the loss of pairs in another process is not finite; it names them",
        ),
        (
            "fsdp2",
            "gradient",
            0,
            "the gradients of 1 weights are not finite, such as 'q_model",
            "the gradients in the shards of another process are not finite;",
        ),
    ],
)
def test_both_processes_stop_and_none_saves(
    tmp_path: Path, strategy: str, what: str, bad_rank: int, named: str, other: str
) -> None:
    model = save_tiny_model(tmp_path / "tiny-model")
    pairs = write_pairs(tmp_path / "pairs", make_pairs(11))

    run_both(model, pairs, tmp_path, strategy, what, bad_rank)

    said = [(tmp_path / f"rank{rank}.txt").read_text(encoding="utf-8") for rank in range(2)]
    assert said[1 - bad_rank].startswith(other)
    assert re.match(named, said[bad_rank])
    assert not list(tmp_path.glob("*.ckpt"))
