"""Step-level DPO against TRL's DPOTrainer: pairs/s, peak memory, and that the losses are equal.

python benchmarks/bench_training.py                      SmolLM2-135M, LoRA, float32, batches of 4
python benchmarks/bench_training.py --depths 5 10 20 --plot depths.png
python benchmarks/bench_training.py --shape llama31-8b --device cuda --dtype bfloat16 \\
    --trajectory-tokens 2048 16384                       random weights; nothing is fetched

Each side runs in a process of its own on the same pairs, model and adapter (training_sides.py).
On a CPU the figures are CPU seconds, which other work on the machine does not change; wall seconds
stand beside. Ours takes whole trajectories as batches; `ours, TRL's batches` the very batches of 4
that TRL gets. `TRL as on GPUs` has its output layer on answer positions only, `TRL stock` is what
it does on a CPU (on the first two pairs, which are short: a minute and ten gigabytes less, in its
favour). TRL is given the reference log-probabilities of the long pairs unless --own-reference is
set; those of the short pairs it always computes itself.

--depths: a trajectory of each depth; TRL is timed on its first, middle and last pair, one at a
time, and their mean stands for all (the pairs' lengths grow evenly). `exponent` is the power of the
trajectory's tokens that a side's cost grows with: 1 is linear. `operations_grew` is what ours must
grow by, as attention costs more the further a token looks back (flops.py); the larger a model, the
nearer to the tokens that is. `--shape llama31-8b --layers 1` measures a layer of a large one on a
CPU, with as small a part of its words.

--shape: `mfu` is the model's operations for real tokens, neither padding nor recomputed layers,
through the seconds and the peak of the device (flops.py has the formula; --peak-tflops gives the
peak of a device that it does not know). A shared token counts once, as it is computed once;
`unshared_tokens_per_s` is what a trainer that shares nothing would have to reach. The first step
of each side is not timed on a GPU: kernels are compiled in it. Where TRL runs out of memory its
batch is halved until it fits, and the row says so.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rows import add_json_option, show
from training_data import generate, read_rows, short_pairs, timed_rows
from training_models import SHAPES
from training_runs import measure_depths, measure_shape, rate, run, seconds

BATCH = 4
REAL_PAIRS = Path("../shared/data/step_pairs/pairs.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_json_option(parser)
    parser.add_argument("--pairs", type=Path, help="JSON lines in TRL's format; else generated")
    parser.add_argument("--batch", type=int, default=BATCH, help="pairs in a batch of TRL")
    parser.add_argument("--trl-steps", type=int, default=3, help="batches that TRL is timed on")
    parser.add_argument("--trajectories", type=int, default=3, help="batches that ours is timed on")
    parser.add_argument("--forest", type=int, default=1, help="trajectories in a batch of ours")
    parser.add_argument("--own-reference", action="store_true", help="TRL computes its own")
    parser.add_argument("--depths", type=int, nargs="+", help="cost of so many steps instead")
    parser.add_argument("--plot", type=Path, help="with --depths: write a PNG")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--layers", type=int, help="with --shape: so many layers, and words alike")
    parser.add_argument("--trajectory-tokens", type=int, nargs="+", help="with --shape")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU if there is one")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for --shape")
    options = parser.parse_args()
    if options.layers and not options.shape:
        parser.error("--layers needs --shape: SmolLM2-135M is measured whole")
    if options.device is None:
        import torch

        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        if options.depths:
            rows, figures = measure_depths(options, Path(scratch))
        elif options.shape and not options.pairs:
            rows, figures = measure_shape(options, Path(scratch))
        else:
            rows, figures = measure(options, Path(scratch))
    show(rows, options.json, figures)


def measure(
    options: argparse.Namespace, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    depths = [5] * max(8, options.forest * options.trajectories)
    pairs = options.pairs or (REAL_PAIRS if REAL_PAIRS.is_file() else generate(folder, depths))
    num_trl = options.batch * options.trl_steps
    ours_rows = timed_rows(
        read_rows(pairs), forest=options.forest, batches=options.trajectories, least=num_trl
    )
    short = ["--short", str(short_pairs(folder))]
    ours = run(options, "ours", pairs, ours_rows, "--same", str(num_trl), *short)
    known = folder / "reference.json"
    known.write_text(json.dumps(ours["main"]["reference"]), encoding="utf-8")
    given = ["--reference", str(known)]
    trl_rows = ours_rows[:num_trl]
    trl = run(options, "trl", pairs, trl_rows, *([] if options.own_reference else given), *short)
    stock = run(options, "trl-stock", pairs, trl_rows[:2], *given, "--batch", "2")
    rows = [
        row("ours", ours["main"], ours["device"], ours["peak_gb"]),
        row("ours, TRL's batches", ours["same"], ours["device"]),
        row("TRL as on GPUs", trl["main"], trl["device"], trl["peak_gb"]),
        row("TRL stock", stock["main"], stock["device"], stock["peak_gb"]),
        row("ours, short pairs", ours["short"], ours["device"]),
        row("TRL as on GPUs, short pairs", trl["short"], trl["device"]),
    ]
    per_s = [entry["pairs_per_s"] for entry in rows]
    figures = {
        "pairs_per_second_ratio": per_s[0] / per_s[2],
        "pairs_per_second_ratio_same_batches": per_s[1] / per_s[2],
        "pairs_per_second_ratio_stock": per_s[0] / per_s[3],
        "peak_memory_ratio": ours["peak_gb"] / trl["peak_gb"],
        "max_loss_difference": max(
            loss_difference(ours["main"], trl["main"]),
            loss_difference(ours["same"], trl["main"]),
            loss_difference(ours["short"], trl["short"]),
        ),
        "short_pairs_ratio": per_s[4] / per_s[5],
        "short_reference_ratio": reference_rate(ours["short"]) / reference_rate(trl["short"]),
        "pairs": pairs.name,
    }
    if options.own_reference:
        found = reference_rate(ours["main"]) / reference_rate(trl["main"])
        figures["reference_ratio"] = found
    return rows, figures


def reference_rate(side: dict[str, Any]) -> float:
    """Pairs per CPU second of the pass before training."""
    once = side.get("reference_cpu_s") or sum(step["reference_cpu_s"] for step in side["steps"])
    num_pairs: int = sum(step["pairs"] for step in side["steps"])
    return num_pairs / float(once)


def loss_difference(ours: dict[str, Any], trl: dict[str, Any]) -> float:
    """Largest difference of the mean losses of TRL's batches."""
    losses, size = ours["pair_losses"], trl["steps"][0]["pairs"]
    means = [sum(losses[i : i + size]) / size for i in range(0, len(losses) - size + 1, size)]
    return max(abs(a - b) for a, b in zip(means, trl["batch_losses"], strict=False))


def row(
    name: str, side: dict[str, Any], device: str, peak_gb: float | None = None
) -> dict[str, Any]:
    steps = side["steps"]
    num_pairs = sum(step["pairs"] for step in steps)
    found = {
        "side": name,
        "pairs_per_s": rate(side, device),
        "pairs_per_wall_s": median(step["pairs"] / step["wall_s"] for step in steps),
        "tokens_per_pair": sum(step["padded_tokens"] for step in steps) / num_pairs,
        "steps": len(steps),
        "step_s": [round(seconds(step, device), 2) for step in steps],
    }
    return found if peak_gb is None else {**found, "peak_gb": peak_gb}


if __name__ == "__main__":
    main()
