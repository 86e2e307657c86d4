"""Pairs of whole episodes train like pairs of actions, and the Q-model acts step by step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data_collection.cli import main as collect_main
from lit_qagent.__main__ import main
from lit_qagent.data.batch import collate_pairs
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.q_heads import ImplicitQHead, QHead, ScalarQHead
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import make_module, make_trainer
from tests.pair_folder import make_episodes, make_pairs, write_pairs
from tests.reference import reference_action_log_prob


@pytest.mark.parametrize("head", [ImplicitQHead(beta=0.1), ScalarQHead()], ids=["implicit", "head"])
def test_training_learns_which_episode_is_better(model: Path, tmp_path: Path, head: QHead) -> None:
    # Step-level pairs may stand beside them.
    pairs = [*map(make_episodes, range(11)), *make_pairs(11, pairs_per_task=1)]
    module, trainer = make_module(model, q_head=head), make_trainer(max_epochs=12)
    data = PreferenceDataModule(write_pairs(tmp_path, pairs), batch_size=6, sharing="batch")

    trainer.fit(module, data)

    assert trainer.callback_metrics["train/accuracy"] == 1.0
    assert trainer.callback_metrics["train/loss"] < 0.5  # log 2 = 0.69 untrained
    episode = next(pair for pair in data.pairs_of("train") if pair.chosen.observed)
    if isinstance(head, ImplicitQHead):
        with torch.no_grad():
            found = module(collate_pairs([episode], "batch").tokens)
        assert found.tolist() == pytest.approx(naive_q(module, episode), abs=1e-5)


def naive_q(module: StepDPO, pair: Any) -> list[float]:  # noqa: ANN401 (rendered pairs)
    """0.1 * (log pi - log pi_ref) over what the agent says in each episode."""
    assert module.q_model is not None
    backbone = module.q_model.backbone
    values = []
    with torch.no_grad():
        for side in (pair.chosen, pair.rejected):
            policy = reference_action_log_prob(backbone.model, *side)
            with backbone.reference():
                values.append(
                    0.1 * float(policy - reference_action_log_prob(backbone.model, *side))
                )
    return values


TOY = {"class_path": "lit_qagent.environments.toy.ToyWorld"}
UNIFORM = {"class_path": "lit_qagent.policies.scripted.ScriptedPolicy"}
SELECTORS = "lit_qagent.agents.selection"


def write(path: Path, values: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # mlflow's are none of ours
def test_step_level_and_whole_episodes_compare_on_a_world(model: Path, tmp_path: Path) -> None:
    collect = {
        "environment": TOY,
        "policy": UNIFORM,
        "search": {"num_iterations": 12, "num_candidates": 4, "stop_at_success": False},
        "prompt": {"think": False, "num_examples": 0, "constrain": True},
        "store": str(tmp_path / "trees"),
    }
    assert collect_main(["collect", "--config", write(tmp_path / "collect.yaml", collect)]) == 0
    for rule in ("paper", "trajectory"):
        folder = tmp_path / rule
        pairs = ["--store", str(tmp_path / "trees"), "--output", str(folder / "pairs")]
        assert collect_main(["pairs", *pairs, "--rule", rule]) == 0
        assert main(["fit", "--config", write(folder / "fit.yaml", fit_config(model, folder))]) == 0
        card = yaml.safe_load((folder / "checkpoint" / "q_model.yaml").read_text())
        assert card["lineage"]["rule"]["name"] == rule
        assert (
            main(
                ["predict", "--config", write(folder / "predict.yaml", play_config(model, folder))]
            )
            == 0
        )
        report = json.loads((folder / "predict" / "report.json").read_text())
        assert report["agents"].keys() == {"q_guided", "random_of_n"}


def fit_config(model: Path, folder: Path) -> dict[str, Any]:
    export = "lit_qagent.training.callbacks.ExportCheckpoint"
    return {
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": str(folder),
            "callbacks": [
                {"class_path": export, "init_args": {"folder": str(folder / "checkpoint")}}
            ],
        },
        "model": {"backbone": {"name": str(model), "dtype": "float32"}, "lora": {"rank": 2}},
        "data": {
            "class_path": "lit_qagent.data.datamodule.PreferenceDataModule",
            "init_args": {"pairs": str(folder / "pairs"), "sharing": "batch"},
        },
    }


def play_config(model: Path, folder: Path) -> dict[str, Any]:
    agents = {
        name: {"selector": {"class_path": f"{SELECTORS}.{selector}"}, "num_candidates": 3}
        for name, selector in (("q_guided", "QSelector"), ("random_of_n", "RandomSelector"))
    }
    return {
        "return_predictions": False,
        "trainer": {"accelerator": "cpu", "logger": False, "enable_progress_bar": False},
        "model": {
            "backbone": {"name": str(model), "dtype": "float32"},
            "checkpoint": str(folder / "checkpoint"),
        },
        "data": {
            "class_path": "lit_qagent.evaluation.tasks.EpisodeDataModule",
            "init_args": {
                "environment": TOY,
                "policy": UNIFORM,
                "agents": agents,
                "tasks": {"split": "test", "num_tasks": 3},
                "prompt": {"think": False, "num_examples": 0, "constrain": True},
                "play": {"output": str(folder / "predict"), "treatment": "q_guided"},
            },
        },
    }
