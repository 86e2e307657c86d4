"""The whole method on a small world: the four commands of a real run, one after the other.

Nothing here is special: each stage is a command that could be typed by hand, with a config named
``configs/*_quickstart.yaml``. This module runs them, measures them and prints what came out. A
stage that has finished with the same configs is not run again, so an interrupted one goes on.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_qagent.core.manifest import write_json
from lit_qagent.stages import StageRecord, costs, exit_code, read_json, run_stages

CONFIGS = Path("configs")
FOLDER = Path("runs/quickstart")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One command of the run.

    Attributes:
        name: Also the name of its config file.
        module: ``python -m`` this.
        command: The subcommand.
        purpose: What it does, for the reader.
    """

    name: str
    module: str
    command: str
    purpose: str

    @property
    def config(self) -> Path:
        """The config file of the stage."""
        return CONFIGS / f"{self.name}_quickstart.yaml"

    @property
    def arguments(self) -> list[str]:
        """What follows ``python``."""
        return ["-m", self.module, self.command, "--config", str(self.config)]


STAGES = (
    Stage(
        name="collect",
        module="data_collection",
        command="collect",
        purpose="search training tasks with MCTS",
    ),
    Stage(
        name="pairs",
        module="data_collection",
        command="pairs",
        purpose="turn the trees into step-level preference pairs",
    ),
    Stage(
        name="fit",
        module="lit_qagent",
        command="fit",
        purpose="train a Q-value model by step-level DPO",
    ),
    Stage(
        name="test",
        module="lit_qagent",
        command="test",
        purpose="measure it on preference pairs of other tasks",
    ),
    Stage(
        name="predict",
        module="lit_qagent",
        command="predict",
        purpose="play held-out tasks with and without it",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has not run yet, print the table, return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lit_qagent quickstart", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help=f"delete {FOLDER} and start anew")
    parser.add_argument(
        "--started",
        type=float,
        default=time.time(),
        help="when the whole run began (seconds since 1970), so that installing is counted too",
    )
    options = parser.parse_args(argv)
    if not CONFIGS.is_dir():
        sys.stderr.write(f"error: {CONFIGS} is not here; run from the project's folder\n")
        return 1
    if options.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    setup_s = time.time() - options.started
    try:
        records = _run_stages(FOLDER)
    except subprocess.CalledProcessError as error:
        sys.stderr.write("\nthe quickstart stopped; run it again to go on: make quickstart\n")
        return exit_code(error)
    report = summarise(FOLDER, records, setup_s)
    write_json(FOLDER / "report.json", report)
    _print_outcome(report)
    return 0


def summarise(folder: Path, records: Mapping[str, StageRecord], setup_s: float) -> dict[str, Any]:
    """Return the report of the played tasks with what the stages before it made and cost.

    Args:
        folder: The run.
        records: What each stage cost.
        setup_s: Seconds before the first stage (installing).
    """
    report = _read(folder / "predict" / "report.json")
    card = _read(folder / "pairs" / "card.json")
    training = _read(folder / "test_metrics.json")
    return {
        **report,
        "trained_tasks": len(card["task_ids"]),
        "pairs": card["num_pairs"],
        "pair_accuracy": training["test/accuracy"],
        "pair_metrics": training,
        "seconds": round(setup_s + sum(record.seconds for record in records.values()), 1),
        "peak_rss_gb": round(max(record.peak_rss_gb for record in records.values()), 3),
        "stages": costs(records),
    }


def _run_stages(folder: Path) -> dict[str, StageRecord]:
    """Run each stage in a process of its own; what is finished is kept in ``stages.json``."""
    return run_stages(STAGES, folder, say=_say)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, "start anew: python -m lit_qagent quickstart --fresh")


def _print_outcome(report: Mapping[str, Any]) -> None:
    """Print what was made and what to try next."""
    minutes = report["seconds"] / 60
    _say(
        f"\nSearched {report['trained_tasks']} training tasks, made {report['pairs']} preference "
        f"pairs, played {report['tasks']} held-out tasks\nin {minutes:.1f} minutes with at most "
        f"{report['peak_rss_gb']:.1f} GB of memory. On held-out pairs the Q-value model prefers "
        f"the better action\nin {100 * report['pair_accuracy']:.0f} % of the cases.\n"
    )
    for name, difference in report["differences"].items():
        _say(
            f"  {name}: {difference['mean']:+.3f} reward "
            f"(95 % interval {difference['low']:+.3f} to {difference['high']:+.3f})"
        )
    _say(
        f"\nThe report:      {FOLDER}/predict/report.html\n"
        "The MLflow runs: .venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db\n"
        "\nTry next:\n"
        "  more search for better Q values:  search.num_iterations in "
        "configs/collect_quickstart.yaml\n"
        "  more candidates per decision:     num_candidates in configs/predict_quickstart.yaml\n"
        "  HotPotQA, your own model, an API: README.md, 'Your own run'"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
