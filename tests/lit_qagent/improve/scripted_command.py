"""Stands for the four commands: writes what a loop reads from them, with rewards from a file.

``script.json`` beside the rounds says what each round's agents earn. A stage with a file
``fails_<round>_<stage>`` ends once with the status in it, or 3 if it is empty.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml


def main(name: str, config_path: Path, options: list[str]) -> None:
    folder = config_path.parent
    script = json.loads((folder.parent / "script.json").read_text())
    config = yaml.safe_load(config_path.read_text())
    with (folder.parent / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"round": folder.name, "stage": name, "options": options}) + "\n")
    failing = folder.parent / f"fails_{folder.name}_{name}"
    if failing.exists():
        status = int(failing.read_text() or 3)
        failing.unlink()
        sys.exit(status)
    {"collect": collect, "pairs": pairs, "fit": fit, "predict": predict}[name](
        config, script.get(folder.name, {}), options
    )


def collect(config: dict[str, Any], script: dict[str, Any], options: list[str]) -> None:
    store = Path(config["store"])
    store.mkdir(parents=True, exist_ok=True)
    cut = "--budget.run.requests" in options and script.get("cut")
    summary: dict[str, Any] = {"trees": 4, "successes": 1, "mean_best_reward": 0.5, "requests": 10}
    summary |= {"prompt_tokens": 1000, "generated_tokens": 100}
    summary |= {"stopped_by": "10 of 10 requests" if cut else None}
    (store / "summary.json").write_text(json.dumps(summary))


def pairs(config: dict[str, Any], script: dict[str, Any], options: list[str]) -> None:
    output = Path(config["output"])
    output.mkdir(exist_ok=True)
    (output / "card.json").write_text(json.dumps({"num_pairs": 7}))


def fit(config: dict[str, Any], script: dict[str, Any], options: list[str]) -> None:
    Path(config["trainer"]["callbacks"][-1]["init_args"]["folder"]).mkdir(exist_ok=True)


def predict(config: dict[str, Any], script: dict[str, Any], options: list[str]) -> None:
    data = config["data"]["init_args"]
    output = Path(data["play"]["output"])
    output.mkdir(exist_ok=True)
    ids = [f"task-{number}" for number in range(data["tasks"]["num_tasks"])]
    agents = {name: {"selector": "x"} for name in data["agents"]}
    manifest = {"schema_version": 1, "environment": {"name": "toy"}, "task_ids": ids}
    manifest |= {"agents": agents, "tasks": data["tasks"]}
    (output / "manifest.json").write_text(json.dumps(manifest))
    lines = []
    for agent in agents:
        for task_id, reward in zip(ids, script[agent], strict=True):
            row = {"agent": agent, "task_id": task_id, "seed": 0, "reward": reward}
            row |= {"metrics": {}, "steps": [STEP], "seconds": 0.1, "requests": 1}
            row |= {"prompt_tokens": 10, "generated_tokens": 5}
            if task_id in script.get("failed", {}).get(agent, []):
                row |= {"reward": 0.0, "steps": [], "failure": "ContextOverflow: too long"}
            if task_id in script.get("unanswered", {}).get(agent, []):
                row |= {"reward": 0.0, "steps": [], "failure": "PolicyFailure: gone"}
                row |= {"failure_kind": "policy failure"}
            if task_id in script.get("tried_twice", []):
                failed = {"reward": 0.0, "steps": [], "failure": "PolicyFailure: no answer"}
                lines.append(json.dumps(row | failed) + "\n")
            lines.append(json.dumps(row) + "\n")
    (output / "trajectories.jsonl").write_text("".join(lines))


STEP = {"action": "a", "observation": "b", "valid": True}
STEP |= {"candidates": ["a"], "scores": None, "chosen": 0}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
