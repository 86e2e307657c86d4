"""What is kept of a history changes the cost of a score and nothing else."""

import asyncio
import random
from pathlib import Path

import pytest
import torch

from lit_qagent.core.records import History, Message
from lit_qagent.data.rendering import SequenceRenderer, TokenSequence
from lit_qagent.models.cached_scoring import CachedScoring
from lit_qagent.models.history_cache import HistoryCache
from lit_qagent.models.q_model import QModel
from lit_qagent.models.scorer import QScorer
from lit_qagent.policies.chat import load_renderer
from tests.reference import reference_action_log_prob, reference_prefixes
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import shake_adapter, tiny_q_model, tiny_spec

COMMANDS = ("open[red]", "open[blue]", "look", "look around", "wait")
LOTS = 10**9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def q_model(model: Path) -> QModel:
    return tiny_q_model(tiny_spec(model))


def renderer(model: Path, max_length: int = 2048) -> SequenceRenderer:
    return SequenceRenderer(load_renderer(str(model)), max_length)


def episode(number: int, num_steps: int) -> list[History]:
    """Histories of one episode, from its start on; different numbers take different actions."""
    rng = random.Random(number)
    head = (
        Message(role="system", content="Open the box that is asked for."),
        Message(role="user", content=f"Task {number % 2}: find the box."),
    )
    histories = [History(head=head)]
    for step in range(num_steps):
        turn = (
            Message(role="assistant", content=rng.choice(COMMANDS)),
            Message(role="user", content=f"You see door {step} and {rng.randrange(9)} boxes."),
        )
        histories.append(History(head=head, turns=histories[-1].turns + turn))
    return histories


def reference_q(q_model: QModel, sequences: list[TokenSequence]) -> list[float]:
    """beta * (log pi - log pi_ref), one whole sequence after the other, the adapter on and off."""
    model = q_model.backbone.model
    values = []
    with torch.no_grad():
        for sequence in sequences:
            policy = reference_action_log_prob(model, *sequence)
            with q_model.backbone.reference():
                base = reference_action_log_prob(model, *sequence)
            values.append(0.1 * float(policy - base))
    return values


@pytest.mark.parametrize("max_length", [2048, 160], ids=["whole", "shortened"])
def test_scores_of_growing_histories_equal_the_reference(
    model: Path, q_model: QModel, max_length: int
) -> None:
    render = renderer(model, max_length)
    cached = CachedScoring(q_model, max_bytes=LOTS)
    episodes = [episode(number, 5) for number in range(4)]
    for histories in zip(*episodes, strict=True):  # four episodes, step by step, in one call
        asked = [render.render(history, COMMANDS) for history in histories]
        with torch.inference_mode():
            scores = cached.score(asked)
        for sequences, values in zip(asked, scores, strict=True):
            assert values == pytest.approx(reference_q(q_model, sequences), abs=1e-5)
    assert (render.counts.dropped_steps > 0) == (max_length == 160)


def test_under_autocast_only_rounding_differs(model: Path, q_model: QModel) -> None:
    cached = CachedScoring(q_model, max_bytes=LOTS)
    for history in episode(1, 3):
        sequences = renderer(model).render(history, COMMANDS)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            [values] = cached.score([sequences])
        assert values == pytest.approx(reference_q(q_model, sequences), abs=0.1)


def test_an_episode_computes_every_token_once(model: Path, q_model: QModel) -> None:
    render = renderer(model)
    cached = CachedScoring(q_model, max_bytes=LOTS)
    asked = [render.render(history, COMMANDS) for history in episode(3, 6)]
    with torch.inference_mode():
        for sequences in asked:
            cached.score([sequences])
    everything = [s.prompt_ids + s.action_ids for sequences in asked for s in sequences]
    # One token more a step: the last one of a prompt is computed again if it was kept.
    assert cached.computed_tokens <= len(reference_prefixes(everything)) + len(asked)
    assert len(cached.cache) == 1


def test_memory_is_bounded_and_the_scores_stay(model: Path, q_model: QModel) -> None:
    render = renderer(model)
    free, bounded = (CachedScoring(q_model, max_bytes=size) for size in (LOTS, 60_000))
    for number in range(6):
        for history in episode(number, 3):
            asked = [render.render(history, COMMANDS)]
            with torch.inference_mode():
                [values] = bounded.score(asked)
                assert values == pytest.approx(free.score(asked)[0], abs=1e-5)
            assert bounded.cache.num_bytes <= 60_000
    assert bounded.computed_tokens > free.computed_tokens


def test_other_weights_find_nothing_kept(model: Path, q_model: QModel) -> None:
    render = renderer(model)
    cached = CachedScoring(q_model, max_bytes=LOTS)
    asked = [render.render(episode(0, 2)[-1], COMMANDS)]
    with torch.inference_mode():
        before = cached.score(asked)
    with torch.no_grad():
        for name, parameter in q_model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-0.5)
    with torch.inference_mode():
        after = cached.score(asked)
    assert after != before
    assert after[0] == pytest.approx(reference_q(q_model, asked[0]), abs=1e-5)
    shake_adapter(q_model)


def test_what_waits_is_answered_in_one_call(
    model: Path, q_model: QModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = QScorer(q_model, renderer(model))
    sizes = []
    answer = CachedScoring.score

    def count(self: CachedScoring, asked: list[list[TokenSequence]]) -> list[list[float]]:
        sizes.append(len(asked))
        return answer(self, asked)

    monkeypatch.setattr(CachedScoring, "score", count)

    async def ask() -> list[list[float]]:
        histories = [episode(number, 2)[-1] for number in range(20)]
        return await asyncio.gather(*(scorer.score(history, COMMANDS) for history in histories))

    assert len(asyncio.run(ask())) == sum(sizes) == 20
    assert len(sizes) < 10


def test_an_error_of_one_request_leaves_the_others_alone(model: Path, q_model: QModel) -> None:
    scorer = QScorer(q_model, renderer(model, 120))

    async def ask() -> tuple[object, object, object]:
        history = episode(0, 0)[-1]
        return await asyncio.gather(
            scorer.score(history, ["look"]),
            scorer.score(history, ["x" * 200]),
            scorer.score(history, ["wait"]),
            return_exceptions=True,
        )

    first, broken, last = asyncio.run(ask())
    assert isinstance(first, list)
    assert isinstance(last, list)
    assert "max_length is 120" in str(broken)


def test_nothing_is_found_in_an_empty_cache() -> None:
    kept = HistoryCache(LOTS, ("policy",)).find([1, 2, 3], 5)
    assert kept.num_tokens == 0
    assert kept.memories["policy"].num_new == 5
    assert kept.memories["policy"].num_bytes == 0
