"""Step-level DPO against TRL's DPOTrainer: pairs/s, peak memory, and that the losses are equal.

python benchmarks/bench_training.py [--json PATH]        about three minutes on two cores
python benchmarks/bench_training.py --pairs ../shared/data/step_pairs/pairs.jsonl --trl-steps 5

Each side runs in a process of its own on the same pairs, model (SmolLM2-135M, float32), adapter and
settings (see training_sides.py); a step is collating, forward, backward and optimizer. On a CPU the
figures are CPU seconds, which other work on the machine does not change; wall seconds stand beside.
Ours takes whole trajectories as batches; `ours-same` the very batches of 4 that TRL gets. `trl` is
TRL with its output layer on answer positions only, as on GPUs; `trl-stock` is what it does on a CPU
(2 pairs a batch, given the known reference: a minute and ten gigabytes less, both in its favour).
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

BATCH = 4
REAL_PAIRS = Path("../shared/data/step_pairs/pairs.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--pairs", type=Path, help="JSON lines in TRL's format; else generated")
    parser.add_argument(
        "--trl-steps", type=int, default=1, help="batches of 4 that TRL is timed on"
    )
    parser.add_argument("--trajectories", type=int, default=4, help="that ours is timed on")
    parser.add_argument("--depths", action="store_true", help="cost of 5, 10 and 20 steps instead")
    options = parser.parse_args()
    figures = measure_depths() if options.depths else measure(options)
    figures["machine"] = machine()
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = options.pairs or (REAL_PAIRS if REAL_PAIRS.is_file() else generate(folder, 8, 5))
        num_ours = max(5 * options.trajectories, BATCH * options.trl_steps)
        trl = run("trl", pairs, BATCH * options.trl_steps)
        known = folder / "reference.json"
        known.write_text(json.dumps(trl), encoding="utf-8")
        stock = run("trl-stock", pairs, 2, "--batch", "2", "--reference", str(known))
        ours = run("ours", pairs, num_ours)
        same = run("ours-same", pairs, BATCH * options.trl_steps)
        short = short_pairs(folder)
        short_trl, short_ours = run("trl", short, 12), run("ours-same", short, 12)
    rows = [row("ours", ours), row("ours, TRL's batches", same), row("TRL as on GPUs", trl)]
    rows += [row("TRL stock", stock)]
    rows += [row("ours, short pairs", short_ours), row("TRL as on GPUs, short pairs", short_trl)]
    return {
        "pairs_per_second_ratio": rate(ours) / rate(trl),
        "pairs_per_second_ratio_same_batches": rate(same) / rate(trl),
        "pairs_per_second_ratio_stock": rate(ours) / rate(stock),
        "peak_memory_ratio": ours["peak_gb"] / trl["peak_gb"],
        "max_loss_difference": max(
            loss_difference(ours, trl),
            loss_difference(same, trl),
            loss_difference(short_ours, short_trl),
        ),
        "short_pairs_ratio": rate(short_ours) / rate(short_trl),
        "reference_ratio": reference_rate(ours) / reference_rate(trl),
        "pairs": str(pairs),
        "rows": rows,
    }


def run(side: str, pairs: Path, num_pairs: int, *more: str) -> dict[str, Any]:
    """Measure one side in a fresh process."""
    script = Path(__file__).with_name("training_sides.py")
    command = [sys.executable, str(script), "--side", side, "--pairs", str(pairs)]
    command += ["--num-pairs", str(num_pairs), *more]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def rate(side: dict[str, Any]) -> float:
    """Pairs per CPU second of the median step (wall second on a GPU)."""
    clock = "wall_s" if side["device"] != "cpu" else "cpu_s"
    return median(step["pairs"] / step[clock] for step in side["steps"])


def reference_rate(side: dict[str, Any]) -> float:
    return sum(step["pairs"] for step in side["steps"]) / side["reference_cpu_s"]


def loss_difference(ours: dict[str, Any], trl: dict[str, Any]) -> float:
    """Largest difference of the mean losses of TRL's batches."""
    losses, size = ours["pair_losses"], trl["steps"][0]["pairs"]
    means = [sum(losses[i : i + size]) / size for i in range(0, len(losses), size)]
    return max(abs(a - b) for a, b in zip(means, trl["batch_losses"], strict=False))


def row(name: str, side: dict[str, Any]) -> dict[str, Any]:
    steps = side["steps"]
    return {
        "side": name,
        "pairs_per_s": rate(side),
        "pairs_per_wall_s": median(step["pairs"] / step["wall_s"] for step in steps),
        "tokens_per_pair": sum(s["tokens"] for s in steps) / sum(s["pairs"] for s in steps),
        "peak_gb": side["peak_gb"],
        "steps": len(steps),
    }


def measure_depths() -> dict[str, Any]:
    """Tokens and CPU seconds of one trajectory of 5, 10 and 20 steps; TRL's tokens beside."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for depth in (5, 10, 20):
            ours = run("ours", generate(Path(scratch), 1, depth), depth)
            [step] = ours["steps"]
            rows.append(
                {
                    "depth": depth,
                    "tokens": step["tokens"],
                    "tokens_pair_by_pair": ours["unshared_tokens"],
                    "cpu_s": step["cpu_s"],
                    "ms_per_token": 1e3 * step["cpu_s"] / step["tokens"],
                }
            )
    return {"rows": rows}


def generate(folder: Path, num_trajectories: int, depth: int) -> Path:
    """Write step-level pairs of the shape that agents give: instruction, question, steps."""
    words = random.Random(0)

    def text(num_words: int) -> str:
        return " ".join(words.choice(_WORDS) for _ in range(num_words))

    path = folder / f"pairs_{depth}.jsonl"
    instruction = f"Answer the question step by step. {text(330)}"
    rows = []
    for _ in range(num_trajectories):
        chat = [{"role": "user", "content": f"{instruction}\nQuestion: {text(14)}?"}]
        for _ in range(depth):
            better, worse = (f"Thought: {text(18)}.\nAction: Search[{text(3)}]" for _ in range(2))
            pair = {"chosen": better, "rejected": worse}
            sides = {k: [{"role": "assistant", "content": v}] for k, v in pair.items()}
            rows.append({"prompt": list(chat), **sides})
            chat += sides["chosen"]
            chat.append({"role": "user", "content": f"Observation: {text(85)}."})
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def short_pairs(folder: Path) -> Path:
    """Write independent pairs with short prompts: the case where sharing brings least."""
    words = random.Random(1)
    path = folder / "short.jsonl"
    lines = []
    for _ in range(12):
        ask, better, worse = (
            " ".join(words.choice(_WORDS) for _ in range(n)) for n in (12, 30, 30)
        )
        lines.append(
            {
                "prompt": [{"role": "user", "content": ask}],
                "chosen": [{"role": "assistant", "content": better}],
                "rejected": [{"role": "assistant", "content": worse}],
            }
        )
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return path


def machine() -> dict[str, Any]:
    """Facts that the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return {
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def report(figures: dict[str, Any]) -> None:
    for entry in figures["rows"]:
        print("  ".join(f"{key}={_show(value)}" for key, value in entry.items()))
    ratios = {k: v for k, v in figures.items() if k not in ("rows", "machine")}
    print("  ".join(f"{key}={_show(value)}" for key, value in ratios.items()))
    print("  ".join(f"{key}={value}" for key, value in figures["machine"].items()))


def _show(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_WORDS = """
river mountain village record station bridge author painter island garden museum castle before after
between under near which where when number early later first second largest smallest northern
southern history people family company school music letter paper stone
""".split()  # noqa: SIM905 (a list of them fills a screen)


if __name__ == "__main__":
    main()
