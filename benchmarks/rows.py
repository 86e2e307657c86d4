"""What every benchmark prints: one row per claim, with the machine it was measured on."""

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any


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
        ["git", "rev-parse", "--short", "HEAD"],
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
    }


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="also write the rows to this file")


def show(rows: list[dict[str, Any]], json_path: Path | None) -> None:
    """Print the rows, one a line, and the machine; write both if asked to."""
    facts = machine()
    for row in rows:
        print("  ".join(f"{key}={_text(value)}" for key, value in row.items()))
    print("  ".join(f"{key}={value}" for key, value in facts.items()))
    if json_path:
        json_path.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
