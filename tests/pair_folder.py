"""Folders of preference pairs for tests: a shelf of boxes, one of which the task asks for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from lit_qagent.core.pairs import CARD_FILE, PAIR_FILE, PAIR_SCHEMA_VERSION, PreferencePair

COLOURS = ("red", "blue", "green", "grey")


def make_pair(task: int, depth: int, **changes: object) -> PreferencePair:
    """Return a pair: opening the box that was asked for is better."""
    wanted = COLOURS[task % len(COLOURS)]
    other = COLOURS[(task + depth % 3 + 1) % len(COLOURS)]
    prompt = [
        {"role": "system", "content": "Open the box that is asked for."},
        {"role": "user", "content": f"Task {task}: find the {wanted} box."},
    ]
    for step in range(depth):
        prompt.append({"role": "assistant", "content": "open[door]"})
        prompt.append({"role": "user", "content": f"Door {step} is open."})
    values: dict[str, Any] = {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": f"open[{wanted}]"}],
        "rejected": [{"role": "assistant", "content": f"open[{other}]"}],
        "task_id": f"task-{task}",
        "tree_id": f"tree-{task}",
        "depth": depth,
        "q_chosen": 1.0 - 0.1 * depth,
        "q_rejected": 0.1 * (task % 3) - 0.5,
        "visits_chosen": 5,
        "visits_rejected": 2,
        "rule": "best_path",
        "environment": "boxes",
        "prompt_version": "1",
    }
    return PreferencePair(**{**values, **changes})


def make_episodes(task: int, **changes: object) -> PreferencePair:
    """Return a pair of whole episodes that part after their first action."""
    wanted, other = (COLOURS[(task + i) % len(COLOURS)] for i in range(2))
    first = [
        {"role": "assistant", "content": "open[door]"},
        {"role": "user", "content": f"Door {task} is open."},
    ]
    values: dict[str, Any] = {
        "chosen": [*first, {"role": "assistant", "content": f"open[{wanted}]"}],
        "rejected": [
            *first,
            {"role": "assistant", "content": f"open[{other}]"},
            {"role": "user", "content": "It is empty."},
            {"role": "assistant", "content": "leave"},
        ],
        "rule": "trajectory",
    }
    return make_pair(task, 0, **{**values, **changes})


def make_pairs(num_tasks: int, *, pairs_per_task: int = 2) -> list[PreferencePair]:
    """Return pairs of several tasks, one at each depth from 0."""
    return [make_pair(task, depth) for task in range(num_tasks) for depth in range(pairs_per_task)]


def write_pairs(folder: Path, pairs: Sequence[PreferencePair], **card: object) -> Path:
    """Write a folder of pairs with its card; ``card`` overrides the card's values."""
    file = folder / PAIR_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(pair) for pair in pairs]
    columns = list(PreferencePair.__dataclass_fields__)
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in columns}), file)
    write_card(folder, **{"num_pairs": len(pairs), **card})
    return folder


def write_card(folder: Path, **changes: object) -> None:
    """Write the card of a folder whose parquet file is there."""
    values: Mapping[str, Any] = {
        "schema_version": PAIR_SCHEMA_VERSION,
        "pairs_hash": hashlib.sha256((folder / PAIR_FILE).read_bytes()).hexdigest(),
        "rule": {"name": "best_path"},
        "environment": {"name": "boxes", "max_steps": 5, "data_hash": "0"},
        "policy": {"name": "scripted"},
        "search": {"num_iterations": 30},
        "prompt": {"think": False, "num_examples": 0},
        "seed": 3,
        "task_ids": [f"task-{task}" for task in range(40)],
        "num_trees": 40,
        "num_pairs": 0,
        "pairs_by_depth": {},
        "removed": {"no_sibling": 2},
    }
    (folder / CARD_FILE).write_text(json.dumps({**values, **changes}), encoding="utf-8")
