"""The training benchmark: its arithmetic by hand, and all of it on a model of two layers."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run_benchmark(folder: Path, *options: str) -> dict[str, Any]:
    path = folder / "figures.json"
    script = str(_ROOT / "benchmarks" / "bench_training.py")
    done = subprocess.run(
        [
            sys.executable,
            script,
            "--json",
            str(path),
            "--shape",
            "tiny",
            "--device",
            "cpu",
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_operations_by_hand() -> None:
    flops = load("flops")
    size = flops.ModelSize(
        layer_weights=100,
        adapter_weights=10,
        layers=2,
        heads=3,
        head_size=4,
        hidden_size=12,
        words=50,
    )

    # 5 tokens * (4 * 100 + 6 * 10) + 7 cells * 12 * 2 * 3 * 4 + 2 scored * 4 * 12 * 50
    assert flops.step_flops(size, tokens=5, cells=7, scored=2) == 2300 + 2016 + 4800
    # A teraflop in half a second on a device that does four in a second.
    assert flops.utilisation(1e12, seconds=0.5, peak_tflops=4.0) == pytest.approx(0.5)


def test_peaks_are_found_by_name() -> None:
    flops = load("flops")

    assert flops.peak_of("NVIDIA H200") == 989.0
    assert flops.peak_of("NVIDIA H100 PCIe") == 756.0
    assert flops.peak_of("NVIDIA H100 80GB HBM3") == 989.0
    assert flops.peak_of("a toaster") is None


def test_the_exponent_of_a_cost_by_hand() -> None:
    load("flops")
    load("training_data")
    exponent = load("training_runs")._exponent
    rows = [{"tokens": n, "linear": 3.0 * n, "square": 0.5 * n**2} for n in (100, 300, 700)]

    assert exponent(rows, "linear") == pytest.approx(1.0)
    assert exponent(rows, "square") == pytest.approx(2.0)


def test_a_shape_is_cut_to_its_first_layers() -> None:
    load("flops")
    load_model = load("training_models").load_model

    model = load_model("tiny", layers=1, device="cpu", dtype="float32", attention="sdpa")

    assert model.config.num_hidden_layers == len(model.model.layers) == 1
    assert model.config.hidden_size == 64
    assert model.config.vocab_size == 512  # its share of 1024


@pytest.mark.integration
def test_a_shape_is_measured_on_both_sides_with_equal_losses(tmp_path: Path) -> None:
    found = run_benchmark(
        tmp_path,
        *("--trajectory-tokens", "1600", "--peak-tflops", "0.1", "--trl-steps", "2"),
    )

    rows = found["rows"]
    assert [(row["side"], row["trajectory_tokens"]) for row in rows] == [
        ("ours", 1600),
        ("TRL", 1600),
    ]
    for row in rows:
        assert 0 < row["mfu"] < 2  # of a peak that is made up
        assert row["mfu"] == pytest.approx(row["tflops_per_s"] / 0.1)
    # Two trajectories of 10 pairs: what is generated has the length that was asked for.
    tokens_per_trajectory = 10 * rows[0]["tokens_per_s"] / rows[0]["pairs_per_s"]
    assert tokens_per_trajectory == pytest.approx(1600, rel=0.05)
    assert found["max_loss_difference"] < 1e-4
    assert found["pairs_per_second_ratio"] > 1
    assert found["machine"]["cores"] >= 1


@pytest.mark.integration
def test_cost_by_depth_is_measured_and_drawn(tmp_path: Path) -> None:
    plot = tmp_path / "depths.png"

    found = run_benchmark(tmp_path, "--depths", "3", "6", "--plot", str(plot))

    assert [row["depth"] for row in found["rows"]] == [3, 6]
    assert [row["trl_pairs_timed"] for row in found["rows"]] == [3, 3]
    # Shared tokens grow with the steps, pair by pair with their square.
    shared, alone = (
        [row[key] for row in found["rows"]] for key in ("tokens", "tokens_pair_by_pair")
    )
    assert alone[1] / alone[0] > 2 > shared[1] / shared[0]
    assert plot.stat().st_size > 5000
    assert found["ours_exponent"] < found["trl_exponent"]
    # More than the tokens, as attention looks further back, and far less than pair by pair.
    assert shared[1] / shared[0] < found["operations_grew"] < alone[1] / alone[0]


@pytest.mark.parametrize(
    ("forest", "batches", "expected"),
    [(1, 3, 15), (4, 1, 32), (4, 3, 60), (4, 9, 80), (16, 1, 80)],  # of 20 trajectories of 4 pairs
)
def test_as_many_rows_are_timed_as_fill_the_batches(
    forest: int, batches: int, expected: int
) -> None:
    rows = [{"prompt": [{"content": f"task {i // 4}"}]} for i in range(80)]
    data = load("training_data")

    found = data.timed_rows(rows, forest=forest, batches=batches, least=12)

    assert found == list(range(expected))


@pytest.mark.integration
def test_forests_are_measured_in_more_than_one_step(tmp_path: Path) -> None:
    pairs = str(load("training_data").generate(tmp_path, [5] * 4))
    short = ("--batch", "2", "--trl-steps", "1", "--trajectories", "1")
    found = run_benchmark(tmp_path, "--pairs", pairs, "--forest", "2", *short)

    assert found["rows"][0]["steps"] == 2


@pytest.mark.integration
def test_the_main_table_has_every_claim(tmp_path: Path) -> None:
    pairs = str(load("training_data").generate(tmp_path, [4, 4]))
    found = run_benchmark(tmp_path, "--pairs", pairs, "--batch", "2", "--trl-steps", "3")

    assert [row["side"] for row in found["rows"]] == [
        "ours",
        "ours, TRL's batches",
        "TRL as on GPUs",
        "TRL stock",
        "ours, short pairs",
        "TRL as on GPUs, short pairs",
    ]
    assert found["rows"][2]["steps"] == 3
    assert found["max_loss_difference"] < 1e-4
    claims = ("pairs_per_second_ratio", "peak_memory_ratio", "short_pairs_ratio")
    assert all(found[claim] > 0 for claim in claims)
