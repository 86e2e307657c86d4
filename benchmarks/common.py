"""What the benchmarks share: a side in a process of its own, the machine's facts, rows as text."""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="write the figures here too")


def run_side(script: str, side: str, *arguments: str) -> dict[str, Any]:
    """Run one side in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, script, "--side", side, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def peak_rss_gb() -> float:
    """Largest resident memory of this process so far, 1e9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def machine() -> dict[str, Any]:
    import torch

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip() or "unknown",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "platform": platform.platform(),
    }


def report(name: str, figures: Mapping[str, Any], path: Path | None) -> None:
    """Print one row, and write it with the machine's facts if a path is given."""
    cells = ", ".join(f"{key} {_show(value)}" for key, value in figures.items() if key != "rows")
    print(f"{name}: {cells}")
    for row in figures.get("rows", []):
        print("   ", ", ".join(f"{key} {_show(value)}" for key, value in row.items()))
    facts = machine()
    print("   ", ", ".join(f"{key} {value}" for key, value in facts.items()))
    if path is not None:
        path.write_text(json.dumps({**figures, "machine": facts}, indent=2) + "\n")


def _show(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
