"""A run from a recording makes the trees of the run that was recorded, to the byte."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_collection.cli import main
from data_collection.collect import choose_tasks, collect
from data_collection.spec import SearchSpec
from data_collection.store import TREES_FOLDER, TreeStore
from lit_qagent.core.errors import DataError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.base import Policy
from lit_qagent.policies.recorded import RecordedPolicy
from tests.data_collection.parts import LetterWorld, make_setup


class MoodyPolicy(Policy):
    """Answers differently in every run, whatever the seed, as many servers do."""

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        proposals = [Proposal(text=random.choice("abcd"), num_tokens=1) for _ in range(n)]
        return self.charge(proposals, prompt_tokens=0, generated_tokens=n)

    def settings(self) -> dict[str, Any]:
        return {"policy": "moody"}


def run(policy: Policy, folder: Path, *, seed: int = 0) -> dict[str, bytes]:
    """Collect 6 trees, 3 at a time, and return the files of the trees."""
    world = LetterWorld(rewards={"ab": 1.0, "cd": 0.5, "abc": 0.25}, num_tasks=6)
    setup = make_setup(
        world, policy, SearchSpec(num_iterations=12, num_candidates=3, stop_at_success=False)
    )
    setup = type(setup)(**{**vars(setup), "seed": seed})
    collect(setup, choose_tasks(setup, "train", 0, None), TreeStore(folder), concurrency=3)
    files = sorted((folder / TREES_FOLDER).iterdir())
    assert len(files) == 6
    return {path.name: path.read_bytes() for path in files}


def test_a_replay_makes_the_same_trees(tmp_path: Path) -> None:
    recording = tmp_path / "answers.jsonl"
    first = run(RecordedPolicy(recording, "record", MoodyPolicy()), tmp_path / "first")
    assert run(RecordedPolicy(recording), tmp_path / "second") == first
    assert run(MoodyPolicy(), tmp_path / "third") != first


def test_a_stopped_run_goes_on_from_the_recording(tmp_path: Path) -> None:
    recording = tmp_path / "answers.jsonl"
    first = run(RecordedPolicy(recording, "record", MoodyPolicy()), tmp_path / "first")
    trees = tmp_path / "first" / TREES_FOLDER
    for path in trees.iterdir():  # as a kill after the fifth iteration would have left them
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:6]))
    assert run(RecordedPolicy(recording), tmp_path / "first") == first


def test_another_seed_asks_what_was_not_recorded(tmp_path: Path) -> None:
    recording = tmp_path / "answers.jsonl"
    run(RecordedPolicy(recording, "record", MoodyPolicy()), tmp_path / "first")
    with pytest.raises(DataError, match="has no answer to this request"):
        run(RecordedPolicy(recording), tmp_path / "second", seed=1)


def test_both_modes_are_settings_of_the_command(tmp_path: Path) -> None:
    toy: dict[str, Any] = {
        "environment": {"class_path": "lit_qagent.environments.toy.ToyWorld"},
        "search": {"num_iterations": 3, "num_candidates": 2},
        "prompt": {"think": False, "constrain": True},
        "num_tasks": 2,
    }
    recording = str(tmp_path / "answers.jsonl")
    answers = {"class_path": "lit_qagent.policies.scripted.ScriptedPolicy"}
    for name, options in (("record", {"mode": "record", "policy": answers}), ("replay", {})):
        policy = {
            "class_path": "lit_qagent.policies.recorded.RecordedPolicy",
            "init_args": {"path": recording, **options},
        }
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump({**toy, "policy": policy, "store": str(tmp_path / name)}))
        assert main(["collect", "--config", str(config)]) == 0
    trees = [sorted((tmp_path / name / TREES_FOLDER).iterdir()) for name in ("record", "replay")]
    assert len(trees[0]) == 2
    assert [path.read_bytes() for path in trees[0]] == [path.read_bytes() for path in trees[1]]
