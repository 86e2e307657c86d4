"""The benchmarks of the collector run; their promises are far from what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_the_cost_of_the_search_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    script = _ROOT / "benchmarks" / "bench_collect.py"
    done = subprocess.run(
        [sys.executable, str(script), "--search_only", "--json", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )
    assert done.returncode == 0, done.stderr
    [row] = json.loads(path.read_text())["rows"]
    assert row["nodes_per_second"] > row["nodes_per_second_with_world_and_policy"] > 2000
