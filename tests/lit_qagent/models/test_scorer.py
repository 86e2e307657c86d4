"""Scoring is training's own function: same rendering, same truncation, same Q."""

import asyncio
from pathlib import Path

import pytest
import torch

from lit_qagent.core.errors import ContextOverflow
from lit_qagent.core.records import History
from lit_qagent.data.batch import collate_pairs
from lit_qagent.data.pairs import pair_history
from lit_qagent.data.rendered import render_pair
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.models.q_model import QModel
from lit_qagent.models.scorer import QScorer
from lit_qagent.policies.chat import load_renderer
from tests.pair_folder import make_pair
from tests.reference import reference_action_log_prob
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

ACTIONS = ["open[red]", "open[blue]", "look"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def q_model(model: Path) -> QModel:
    return tiny_q_model(tiny_spec(model))


@pytest.fixture
def history() -> History:
    return pair_history(make_pair(0, 2))


def make_renderer(model: Path, max_length: int = 2048) -> SequenceRenderer:
    return SequenceRenderer(load_renderer(str(model)), max_length)


@pytest.mark.parametrize("max_length", [2048, 220], ids=["whole", "shortened"])
def test_a_score_is_the_value_in_training(model: Path, q_model: QModel, max_length: int) -> None:
    pairs = [make_pair(task, depth) for task, depth in ((0, 0), (1, 3), (2, 5))]
    renderer = make_renderer(model, max_length)
    rendered = [render_pair(pair, renderer) for pair in pairs]
    batch = collate_pairs([tokens for tokens in rendered if tokens is not None], "pair")
    trained = q_model(batch.tokens).view(-1, 2)
    scorer = QScorer(q_model, make_renderer(model, max_length))

    for pair, expected in zip(pairs, trained.tolist(), strict=True):
        actions = [pair.chosen[0]["content"], pair.rejected[0]["content"]]
        assert asyncio.run(scorer.score(pair_history(pair), actions)) == pytest.approx(
            expected, abs=1e-5
        )
    assert scorer.counts == renderer.counts
    assert (scorer.counts.dropped_steps > 0) == (max_length == 220)


def test_candidates_do_not_see_each_other(model: Path, q_model: QModel, history: History) -> None:
    scorer = QScorer(q_model, make_renderer(model))

    together = asyncio.run(scorer.score(history, ACTIONS))
    alone = [asyncio.run(scorer.score(history, [action]))[0] for action in ACTIONS]

    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 3


def test_a_model_that_cannot_share_prefixes_scores_the_same_and_says_what_it_costs(
    model: Path,
    q_model: QModel,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = asyncio.run(QScorer(q_model, make_renderer(model)).score(history, ACTIONS))
    assert "whole history again" not in caplog.text
    kinds = ["full_attention", "sliding_attention"]
    monkeypatch.setattr(q_model.backbone.language_model.config, "layer_types", kinds, raising=False)

    scorer = QScorer(q_model, make_renderer(model))

    assert asyncio.run(scorer.score(history, ACTIONS)) == pytest.approx(expected, abs=1e-5)
    assert "every decision computes its whole history again" in caplog.text


def test_only_histories_that_leave_the_window_are_computed_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_tiny_model(tmp_path, kind="phi3", sliding_window=230)
    q_model = tiny_q_model(tiny_spec(model))
    scorer = QScorer(q_model, make_renderer(model))
    whole: list[int] = []
    q_model.register_forward_hook(lambda *_: whole.append(1))

    found = []
    for depth in range(5):  # of 97 to 282 tokens
        found.append(asyncio.run(scorer.score(pair_history(make_pair(0, depth)), ACTIONS)))

    assert 0 < len(whole) < 5
    network = q_model.backbone.model
    for depth, values in enumerate(found):
        sequences = make_renderer(model).render(pair_history(make_pair(0, depth)), ACTIONS)
        with torch.no_grad():
            policy = [float(reference_action_log_prob(network, *one)) for one in sequences]
            with q_model.backbone.reference():
                base = [float(reference_action_log_prob(network, *one)) for one in sequences]
        expected = [0.1 * (now - then) for now, then in zip(policy, base, strict=True)]
        assert values == pytest.approx(expected, abs=1e-5)
    assert "histories of more than 230 tokens are computed whole" in caplog.text


def test_many_episodes_may_ask_at_once(model: Path, q_model: QModel, history: History) -> None:
    scorer = QScorer(q_model, make_renderer(model))

    async def ask_together() -> list[list[float]]:
        return await asyncio.gather(*(scorer.score(history, [action]) for action in ACTIONS * 3))

    [first, *_] = answers = asyncio.run(ask_together())

    assert answers[3] == answers[6] == first
    assert all(p.requires_grad == ("lora_" in n) for n, p in q_model.named_parameters())


def test_an_action_longer_than_the_context_is_refused(
    model: Path, q_model: QModel, history: History
) -> None:
    scorer = QScorer(q_model, make_renderer(model, 150))

    with pytest.raises(ContextOverflow, match="max_length is 150; raise max_length"):
        asyncio.run(scorer.score(history, ["go", "open[" + "x" * 150 + "]"]))

    assert scorer.counts.too_long == 1


def test_no_candidates_have_no_scores(model: Path, q_model: QModel, history: History) -> None:
    assert asyncio.run(QScorer(q_model, make_renderer(model)).score(history, [])) == []


def test_scoring_leaves_the_global_random_state_alone(
    model: Path, q_model: QModel, history: History
) -> None:
    before = torch.get_rng_state()

    asyncio.run(QScorer(q_model, make_renderer(model)).score(history, ACTIONS))

    assert torch.equal(torch.get_rng_state(), before)
