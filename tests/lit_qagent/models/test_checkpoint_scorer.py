"""A checkpoint named in a configuration scores as the model that was saved, and guides a search."""

import asyncio
import json
from pathlib import Path

import pytest

from data_collection.cli import main
from lit_qagent.core.errors import CheckpointError
from lit_qagent.data.pairs import pair_history
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.models.checkpoint_scorer import CheckpointScorer
from lit_qagent.models.export import describe, save_checkpoint
from lit_qagent.models.scorer import QScorer
from lit_qagent.policies.chat import load_renderer
from tests.pair_folder import make_pair
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

ACTIONS = ["open[red]", "open[blue]", "look"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-model")


@pytest.fixture
def checkpoint(tmp_path: Path, model: Path) -> Path:
    q_model = tiny_q_model(tiny_spec(model))
    lineage = {"pairs_hash": "abc", "task_ids": ["t1"]}
    card = describe(q_model, max_length=2048, lineage=lineage, metrics={})
    save_checkpoint(tmp_path / "checkpoint", q_model, card)
    return tmp_path / "checkpoint"


def test_scores_are_those_of_the_saved_model(checkpoint: Path, model: Path) -> None:
    spec = tiny_spec(model)
    history = pair_history(make_pair(0, 2))
    renderer = SequenceRenderer(load_renderer(str(model)), 2048)
    saved = asyncio.run(QScorer(tiny_q_model(spec), renderer).score(history, ACTIONS))
    scorer = CheckpointScorer(checkpoint, spec)
    assert asyncio.run(scorer.score(history, ACTIONS)) == pytest.approx(saved, abs=1e-5)
    assert scorer.settings()["lineage"] == {"pairs_hash": "abc"}
    json.dumps(scorer.settings())


def test_a_folder_without_a_checkpoint_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no q_model\.yaml"):
        CheckpointScorer(tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize("variant", ["puct", "q_rollout", "q_value"])
def test_a_checkpoint_guides_a_search_from_the_command_line(
    tmp_path: Path, checkpoint: Path, model: Path, variant: str
) -> None:
    store = tmp_path / "store"
    arguments = [
        *("collect", "--environment", "lit_qagent.environments.toy.ToyWorld"),
        *("--policy", "lit_qagent.policies.scripted.ScriptedPolicy", "--num_tasks", "2"),
        *("--prompt.think", "false", "--prompt.constrain", "true"),
        *("--search.variant", variant, "--search.num_iterations", "4"),
        *("--scorer", "lit_qagent.models.checkpoint_scorer.CheckpointScorer"),
        *("--scorer.checkpoint", str(checkpoint), "--scorer.backbone.name", str(model)),
        *("--scorer.backbone.dtype", "float32", "--store", str(store)),
    ]
    assert main(arguments) == 0
    summary = json.loads((store / "summary.json").read_text())
    assert (summary["finished"], summary["failures"]) == (2, 0)
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["search"]["variant"] == variant
    assert manifest["scorer"]["class"].endswith("CheckpointScorer")
