"""Memory of kept histories: who sets it, what it bounds, and what is said of too little."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import History
from lit_qagent.data.pairs import pair_history
from lit_qagent.data.rendering import SequenceRenderer, TokenSequence
from lit_qagent.models.cached_scoring import CachedScoring
from lit_qagent.models.checkpoint_scorer import CheckpointScorer
from lit_qagent.models.export import describe, save_checkpoint
from lit_qagent.models.q_model import QModel
from lit_qagent.models.scorer import DEFAULT_CACHE_GB, QScorer
from lit_qagent.policies.chat import load_renderer
from lit_qagent.training.module import StepDPO
from tests.pair_folder import make_pair
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

ACTIONS = ["open[red]", "open[blue]", "look"]
LOTS = 10**9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def q_model(model: Path) -> QModel:
    return tiny_q_model(tiny_spec(model))


@pytest.fixture
def renderer(model: Path) -> SequenceRenderer:
    return SequenceRenderer(load_renderer(str(model)), 2048)


def history(task: int, depth: int) -> History:
    return pair_history(make_pair(task, depth))


def render(renderer: SequenceRenderer, task: int, depth: int) -> list[TokenSequence]:
    return renderer.render(history(task, depth), ACTIONS)


def score(cached: CachedScoring, *asked: list[TokenSequence]) -> None:
    with torch.inference_mode():
        cached.score(asked)


def size_of(q_model: QModel, sequences: list[TokenSequence]) -> int:
    """Return how many bytes a history and its candidates take up."""
    cached = CachedScoring(q_model, max_bytes=LOTS)
    score(cached, sequences)
    return cached.cache.num_bytes


def test_histories_that_went_for_lack_of_room_are_counted_when_they_are_asked_for_again(
    q_model: QModel, renderer: SequenceRenderer
) -> None:
    size = size_of(q_model, render(renderer, 0, 1))
    cached = CachedScoring(q_model, max_bytes=size * 3 // 2)  # for one of two
    for task in (0, 1, 2):
        score(cached, render(renderer, task, 0))
    assert cached.cache.num_recomputed == 0  # each was new
    score(cached, render(renderer, 2, 1))
    assert cached.cache.num_recomputed == 0  # the last one is kept
    score(cached, render(renderer, 0, 1))
    score(cached, render(renderer, 1, 0))
    assert cached.cache.num_recomputed == 2  # one that goes on, and one as it was
    with torch.no_grad():
        next(q_model.parameters()).add_(0)
    score(cached, render(renderer, 0, 1))
    assert cached.cache.num_recomputed == 2  # other weights: nothing was lost for lack of room


def test_with_room_for_all_or_none_nothing_is_counted(
    q_model: QModel, renderer: SequenceRenderer
) -> None:
    for max_bytes in (0, LOTS):
        cached = CachedScoring(q_model, max_bytes=max_bytes)
        for depth in range(3):
            score(cached, *(render(renderer, task, depth) for task in range(3)))
        assert cached.cache.num_recomputed == 0


def test_the_bound_includes_the_call_in_flight(
    q_model: QModel, renderer: SequenceRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [render(renderer, task, 1) for task in range(3)]
    sizes = [size_of(q_model, sequences) for sequences in asked]
    max_bytes = sum(sizes) - 1
    cached = CachedScoring(q_model, max_bytes=max_bytes)
    kept: list[int] = []
    decode = q_model.backbone.decode_groups

    def note(*args: Any) -> torch.Tensor:  # noqa: ANN401 (handed on)
        kept.append(cached.cache.num_bytes)
        return decode(*args)

    monkeypatch.setattr(q_model.backbone, "decode_groups", note)
    for sequences in asked:
        score(cached, sequences)
    assert max(kept[-2:]) + sizes[-1] <= max_bytes
    assert len(cached.cache) == 2


def test_too_little_room_is_said_once_with_what_to_raise(
    q_model: QModel, renderer: SequenceRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    size = size_of(q_model, render(renderer, 0, 0))
    scorer = QScorer(q_model, renderer, cache_gb=size * 1.5e-9)
    for _ in range(3):
        for task in range(3):
            asyncio.run(scorer.score(history(task, 0), ACTIONS))
    assert scorer.num_recomputed == 6
    [said] = [r.getMessage() for r in caplog.records if "computed again" in r.getMessage()]
    assert "Raise model.scorer_cache_gb (cache_gb of a CheckpointScorer)" in said
    assert f"{size * 1.5e-9:g} GB" in said


def test_configs_set_the_size(tmp_path: Path, model: Path, q_model: QModel) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, q_model, describe(q_model, max_length=2048, lineage={}, metrics={}))
    spec = tiny_spec(model)
    for options, size in (({}, DEFAULT_CACHE_GB), ({"cache_gb": 0.25}, 0.25)):
        scorer = CheckpointScorer(folder, spec, **options)
        asyncio.run(scorer.score(history(0, 0), ACTIONS))
        assert scorer._scorer is not None
        assert scorer._scorer._cached.cache.max_bytes == size * 1e9
        module = StepDPO(spec, **{f"scorer_{name}": value for name, value in options.items()})  # type: ignore[arg-type]
        module.configure_model()
        assert module.scorer()._cached.cache.max_bytes == size * 1e9
        # It is no setting of the training: a `.ckpt` of another size goes on without a word.
        assert "scorer_cache_gb" not in module.hparams


def test_a_negative_size_is_refused(tmp_path: Path, q_model: QModel) -> None:
    with pytest.raises(ConfigError, match=r"model\.scorer_cache_gb must be >= 0, got -1"):
        StepDPO(scorer_cache_gb=-1)
    with pytest.raises(ConfigError, match=r"CheckpointScorer\.cache_gb must be >= 0, got -0\.5"):
        CheckpointScorer(tmp_path, cache_gb=-0.5)
    with pytest.raises(ConfigError, match=r"QScorer\.cache_gb must be >= 0, got -2"):
        QScorer(q_model, None, cache_gb=-2)  # type: ignore[arg-type]
