"""What bench_training.py measures beside its main table: cost by depth, and large shapes."""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from flops import ModelSize, peak_of, step_flops, utilisation
from training_data import generate, generate_by_tokens, read_rows

Found = tuple[list[dict[str, Any]], dict[str, Any]]


def run(
    options: argparse.Namespace, side: str, pairs: Path, rows: list[int], *more: str
) -> dict[str, Any]:
    """Measure one side in a fresh process."""
    script = Path(__file__).with_name("training_sides.py")
    command = [sys.executable, str(script), "--side", side, "--pairs", str(pairs)]
    command += ["--rows", *map(str, rows), "--device", options.device, "--dtype", options.dtype]
    command += ["--shape", options.shape] if options.shape else []
    command += ["--layers", str(options.layers)] if options.layers else []
    command += [] if "--batch" in more else ["--batch", str(options.batch)]
    # By depth every trajectory is a step of its own.
    command += ["--forest", str(1 if options.depths else options.forest)]
    command += more
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == -signal.SIGKILL:
        raise SystemExit(
            f"{' '.join(command)} was killed, most likely for memory: TRL needs 23 GB for batches "
            "of 4 long pairs; end other programs, or give a lower --batch"
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def seconds(step: dict[str, Any], device: str) -> float:
    """CPU seconds of a step; wall seconds on a GPU."""
    return float(step["cpu_s" if device == "cpu" else "wall_s"])


def rate(side: dict[str, Any], device: str) -> float:
    """Pairs per second of the median step."""
    return median(step["pairs"] / seconds(step, device) for step in side["steps"])


def measure_depths(options: argparse.Namespace, folder: Path) -> Found:
    """Cost of one trajectory of each depth; both sides see all of them in one process."""
    pairs = generate(folder, options.depths)
    # A first step, in which memory is taken, would make the shortest trajectory dear.
    more = ["--warm-up", "1", *_gpu_options(options)]
    ours = run(options, "ours", pairs, list(range(sum(options.depths))), *more)
    samples = []
    for depth, end in zip(options.depths, accumulate(options.depths), strict=True):
        first = end - depth
        samples.append([first + i for i in sorted({0, depth // 2, depth - 1})])
    chosen = [index for sample in samples for index in sample]
    known = _reference_of(ours, chosen, folder)
    trl = run(options, "trl", pairs, chosen, "--batch", "1", *known, *more)
    timed = iter(trl["main"]["steps"])
    rows = []
    for depth, sample, step in zip(options.depths, samples, ours["main"]["steps"], strict=True):
        theirs = [seconds(next(timed), options.device) for _ in sample]
        mine = seconds(step, options.device)
        trl_s = sum(theirs) / len(theirs) * depth
        rows.append(
            {
                "depth": depth,
                "tokens": step["tokens"],
                "tokens_pair_by_pair": step["unshared_tokens"],
                "tflop": _operations(ours, [step]) / 1e12,
                "ours_s": mine,
                "ours_ms_per_token": 1e3 * mine / step["tokens"],
                "trl_s": trl_s,
                "trl_pairs_timed": len(sample),
                "ratio": trl_s / mine,
            }
        )
    if options.plot:
        plot_depths(rows, options.plot)
    first, last = rows[0], rows[-1]
    return rows, {
        "tokens_grew": last["tokens"] / first["tokens"],
        "operations_grew": last["tflop"] / first["tflop"],
        "ours_grew": last["ours_s"] / first["ours_s"],
        "trl_grew": last["trl_s"] / first["trl_s"],
        "ours_exponent": _exponent(rows, "ours_s"),
        "trl_exponent": _exponent(rows, "trl_s"),
    }


def _exponent(rows: list[dict[str, Any]], side: str) -> float:
    """Return the power of the trajectory's tokens that a side's cost grows with: 1 is linear."""
    if len(rows) < 2:
        return math.nan
    logs = np.log([[row["tokens"], row[side]] for row in rows])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def plot_depths(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the cost of both sides against depth and against the trajectory's tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("depth", "tokens"), strict=True):
        for side in ("ours", "trl"):
            axes.plot(
                [row[key] for row in rows], [row[f"{side}_s"] for row in rows], "o-", label=side
            )
        label = "steps" if key == "depth" else "tokens of the trajectory, shared ones once"
        axes.set(xlabel=label, ylabel="seconds a trajectory", xlim=(0, None), ylim=(0, None))
        axes.legend()
    figure.savefig(path, dpi=120)


def measure_shape(options: argparse.Namespace, folder: Path) -> Found:
    """Both sides with random weights, for trajectories of each length."""
    rows: list[dict[str, Any]] = []
    ratios, memory, losses = [], [], []
    for length in options.trajectory_tokens or [2048]:
        pairs = generate_by_tokens(folder, length, 2 * options.forest)
        num_pairs = len(read_rows(pairs))
        ours = run(options, "ours", pairs, list(range(num_pairs)), *_gpu_options(options))
        mine = _shape_row(options, "ours", length, ours)
        rows.append(mine)
        if "out_of_memory" in ours:
            continue
        other, difference = _trl_of_shape(options, folder, pairs, ours)
        theirs = _shape_row(options, "TRL", length, other)
        rows.append(theirs)
        if "out_of_memory" not in other:
            ratios.append(mine["pairs_per_s"] / theirs["pairs_per_s"])
            memory.append(mine["peak_gb"] / theirs["peak_gb"])
            losses.append(difference)
            mine["pairs_per_second_ratio"] = ratios[-1]
    if not ratios:
        return rows, {}
    return rows, {
        "pairs_per_second_ratio": min(ratios),
        "peak_memory_ratio": max(memory),
        "max_loss_difference": max(losses),
    }


def _trl_of_shape(
    options: argparse.Namespace, folder: Path, pairs: Path, ours: dict[str, Any]
) -> tuple[dict[str, Any], float]:
    """Measure TRL with as large a batch as fits; also return how far the losses are apart."""
    depth = len(read_rows(pairs)) // (2 * options.forest)
    batch = min(options.batch, depth)
    while True:
        starts = _spread(depth - batch, options.trl_steps)
        sample = [start + i for start in starts for i in range(batch)]
        known = _reference_of(ours, sample, folder)
        more = [*known, *_gpu_options(options), "--batch", str(batch)]
        found = run(options, "trl", pairs, sample, *more)
        if "out_of_memory" not in found:
            break
        if batch == 1:
            return found, 0.0
        batch //= 2
    found["batch"] = batch
    losses = [ours["main"]["pair_losses"][i] for i in sample]
    means = [sum(losses[i : i + batch]) / batch for i in range(0, len(losses), batch)]
    theirs = found["main"]["batch_losses"]
    return found, max(abs(a - b) for a, b in zip(means, theirs, strict=True))


def _spread(last: int, number: int) -> list[int]:
    """Return where batches start, evenly from the first pairs of a trajectory to its last."""
    if number == 1:
        return [last // 2]
    return sorted({round(i * last / (number - 1)) for i in range(number)})


def _shape_row(
    options: argparse.Namespace, name: str, length: int, side: dict[str, Any]
) -> dict[str, Any]:
    """Describe a side; its rate is over all steps, as their lengths differ."""
    found: dict[str, Any] = {"shape": options.shape, "trajectory_tokens": length, "side": name}
    if "out_of_memory" in side:
        return {**found, "out_of_memory": True}
    steps = side["main"]["steps"]
    time = sum(seconds(step, side["device"]) for step in steps)
    totals = {
        key: sum(step[key] for step in steps)
        for key in ("pairs", "tokens", "padded_tokens", "unshared_tokens")
    }
    flops = _operations(side, steps)
    peak = options.peak_tflops
    if peak is None and options.dtype == "bfloat16":
        peak = peak_of(side.get("device_name", ""))
    return {
        **found,
        "pairs_per_s": totals["pairs"] / time,
        "tokens_per_s": totals["tokens"] / time,
        "unshared_tokens_per_s": totals["unshared_tokens"] / time,
        "padding": 1 - totals["tokens"] / totals["padded_tokens"],
        "tflops_per_s": flops / time / 1e12,
        "mfu": utilisation(flops, time, peak) if peak else None,
        "peak_gb": side["peak_gb"],
        "batch": side.get("batch", "trajectory"),
        "steps": len(steps),
        "device": side.get("device_name", side["device"]),
        "dtype": options.dtype,
    }


def _operations(side: dict[str, Any], steps: list[dict[str, Any]]) -> float:
    """Floating-point operations that the steps of a side need."""
    tokens, cells, scored = (
        sum(step[key] for step in steps) for key in ("tokens", "cells", "scored")
    )
    return step_flops(ModelSize(**side["size"]), tokens=tokens, cells=cells, scored=scored)


def _reference_of(ours: dict[str, Any], sample: list[int], folder: Path) -> list[str]:
    """Write our reference of some rows; returns the option that hands it to TRL."""
    path = folder / "reference.json"
    columns = ours["main"]["reference"]
    path.write_text(json.dumps({k: [v[i] for i in sample] for k, v in columns.items()}))
    return ["--reference", str(path)]


def _gpu_options(options: argparse.Namespace) -> list[str]:
    """On a GPU kernels are compiled in the first step, and large models keep no activations."""
    if options.device == "cpu":
        return []
    large = options.shape in ("llama31-8b", "phi-1_5") and not options.no_checkpointing
    return ["--warm-up", "1", *(["--checkpointing"] if large else [])]
