"""What handing searches out to a Ray cluster costs: rates without a model, local and with Ray.

A cluster of many GPUs asks the driver for some dozens of iterations a second; this says how many
it can do. One engine actor, two search actors, the toy world, the scripted policy.

    python benchmarks/bench_ray.py [--json PATH] [--runs 3]
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rows import add_json_option, show

from data_collection.collect import choose_tasks, collect
from data_collection.executors import Executor, LocalExecutor, RayExecutor
from data_collection.executors.ray_cluster import connected
from data_collection.executors.recipe import build_policy, build_setup
from data_collection.setup import SearchSetup
from data_collection.store import TreeStore

CONCURRENCY = 32
RECIPE: dict[str, Any] = {
    "environment": {"class_path": "lit_qagent.environments.toy.ToyWorld"},
    "policy": {"class_path": "lit_qagent.policies.scripted.ScriptedPolicy"},
    "search": {"num_iterations": 30, "num_candidates": 5, "stop_at_success": False},
    "prompt": {"think": False, "constrain": True},
    "sampling": {},
    "seed": 0,
}


def rates(name: str, executor: Executor, runs: int) -> dict[str, Any]:
    """Return the medians of some runs; what it takes to start actors is not in them."""
    setup = SearchSetup(**{**vars(build_setup(RECIPE, build_policy(RECIPE))), "recipe": RECIPE})
    tasks = choose_tasks(setup, "train", 0, None)
    summaries = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            store = TreeStore(Path(folder) / "store")
            summaries.append(
                collect(setup, tasks, store, concurrency=CONCURRENCY, executor=executor)
            )
    seconds = statistics.median(summary.run_seconds for summary in summaries)
    return {
        "executor": name,
        "iterations_per_second": round(summaries[0].iterations / seconds, 1),
        "requests_per_second": round(summaries[0].requests / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_json_option(parser)
    parser.add_argument("--runs", type=int, default=3, help="runs of each executor")
    options = parser.parse_args()
    local = rates("local", LocalExecutor(), options.runs)
    ray = RayExecutor(engines=1, searchers=2)
    with connected(ray):
        show([local, rates("ray", ray, options.runs)], options.json)


if __name__ == "__main__":
    main()
