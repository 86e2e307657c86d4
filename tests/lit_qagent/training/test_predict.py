"""What ``predict`` hands to its shards, and says of the Q-model."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import pytest
from torch.utils.data import DataLoader

from lit_qagent.agents.selection import Scorer
from lit_qagent.models.export import describe, save_checkpoint
from lit_qagent.models.q_heads import ImplicitQHead
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.lineage import hash_weights
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import weights_of
from tests.tiny_q_model import shake_adapter, tiny_spec


def make_module(model: Path, checkpoint: Path | None = None) -> StepDPO:
    return StepDPO(tiny_spec(model), LoraSpec(rank=2), checkpoint=checkpoint)


class Shard:
    """A batch of predict that keeps what it was given."""

    def play(self, scorer: Scorer, lineage: Mapping[str, Any]) -> dict[str, Any]:
        return {"scorer": scorer, "lineage": lineage}


def predict(module: StepDPO) -> list[Any]:
    shards: DataLoader[Shard] = DataLoader([Shard(), Shard()], batch_size=None)  # type: ignore[arg-type]
    found = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).predict(
        module, shards
    )
    assert found is not None
    return found


def test_predict_lends_the_q_model_and_its_lineage_to_every_shard(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = make_module(model)
    start.configure_model()
    assert start.q_model is not None
    shake_adapter(start.q_model)
    card = describe(start.q_model, max_length=2048, lineage={"task_ids": ["old-task"]}, metrics={})
    save_checkpoint(tmp_path, start.q_model, card)
    module = make_module(model, checkpoint=tmp_path)

    with caplog.at_level(logging.WARNING):
        first, second = predict(module)

    assert first["scorer"] is second["scorer"] is module.scorer()
    assert first["lineage"]["task_ids"] == ["old-task"]
    assert first["lineage"]["weights_hash"] == hash_weights(weights_of(module))
    assert "untrained" not in caplog.text


def test_q_models_whose_heads_differ_in_their_settings_alone_are_told_apart(model: Path) -> None:
    def lineage(reduction: Literal["sum", "mean"]) -> dict[str, Any]:
        pl.seed_everything(0, verbose=False)  # equal weights
        head = ImplicitQHead(beta=0.2, reduction=reduction)
        found: dict[str, Any] = predict(StepDPO(tiny_spec(model), LoraSpec(rank=2), head))[0]
        return found["lineage"]  # type: ignore[no-any-return]

    by_sum, by_mean = lineage("sum"), lineage("mean")

    assert by_sum["backbone"] == "tiny-model"
    assert by_sum["head"] == "implicit"
    assert by_sum["head_settings"] == {"beta": 0.2, "reduction": "sum"}
    assert by_mean == {**by_sum, "head_settings": {"beta": 0.2, "reduction": "mean"}}


def test_predict_says_so_if_the_q_model_does_not_see_whole_histories(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = make_module(model)
    module.configure_model()
    counts = module.scorer().counts
    counts.rendered, counts.shortened, counts.dropped_steps = 9, 2, 5

    with caplog.at_level(logging.WARNING):
        predict(module)

    assert "scored 2 of 9 histories without their oldest steps (5 steps)" in caplog.text


def test_predict_says_so_if_nothing_was_trained(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        [first, _] = predict(make_module(model))

    assert "task_ids" not in first["lineage"]
    assert "the Q-model is untrained, so Q is 0 for every action" in caplog.text
