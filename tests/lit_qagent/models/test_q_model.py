"""Every layout of a batch gives the log-probabilities and gradients of whole single sequences."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from lit_qagent.data.batch import PairTokens, Sharing, collate_pairs, collate_sequences
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models import token_scores as module
from lit_qagent.models.attention import branch_mask
from lit_qagent.models.q_model import QModel
from tests.reference import reference_action_log_prob
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

HEAD = list(range(30, 50))
# Two pairs share their head, the second continues with what the first chose; lengths differ.
PAIRS = [
    PairTokens(
        TokenSequence([*HEAD, 60, 61], [70, 71, 2]),
        TokenSequence([*HEAD, 60, 61], [70, 72, 73, 74, 2]),
        1.0,
        0.0,
        0,
    ),
    PairTokens(
        TokenSequence([*HEAD, 60, 61, 70, 71, 2, 80], [81, 2]),
        TokenSequence([*HEAD, 60, 61, 70, 71, 2, 80], [82, 2]),
        1.0,
        0.0,
        1,
    ),
]
SEQUENCES = [sequence for pair in PAIRS for sequence in (pair.chosen, pair.rejected)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def q_model(model: Path) -> QModel:
    return tiny_q_model(tiny_spec(model))


def gradients(q_model: QModel) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in q_model.named_parameters() if p.grad is not None}
    q_model.zero_grad()
    return found


@pytest.mark.parametrize("sharing", get_args(Sharing))
@pytest.mark.parametrize("chunk", [3, 256])
def test_log_probs_and_gradients_equal_single_sequences(
    q_model: QModel, sharing: Sharing, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    weights = torch.tensor([1.0, -0.7, 0.5, -0.2])

    naive = torch.stack(
        [reference_action_log_prob(q_model.backbone.model, *sequence) for sequence in SEQUENCES]
    )
    torch.autograd.backward((naive * weights).sum())
    expected = gradients(q_model)
    found = q_model.action_log_probs(collate_pairs(PAIRS, sharing).tokens)
    torch.autograd.backward((found * weights).sum())

    torch.testing.assert_close(found, naive, atol=1e-5, rtol=1e-6)
    for name, gradient in gradients(q_model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)
    assert len(expected) == 28


def test_a_left_padded_batch_equals_its_rows_one_by_one(q_model: QModel) -> None:
    together = collate_sequences([[sequence] for sequence in SEQUENCES])

    with torch.no_grad():
        batched = q_model(together)
        alone = torch.cat([q_model(collate_sequences([[sequence]])) for sequence in SEQUENCES])

    assert not together.is_token.all()
    torch.testing.assert_close(batched, alone, atol=1e-5, rtol=0)


def test_q_is_beta_times_policy_minus_reference(q_model: QModel) -> None:
    batch = collate_pairs(PAIRS, "pair").tokens

    with torch.no_grad():
        policy = q_model.action_log_probs(batch)
        with q_model.backbone.reference():
            reference = q_model.action_log_probs(batch)

        torch.testing.assert_close(q_model(batch), 0.1 * (policy - reference))


def test_no_gradient_flows_through_the_reference(q_model: QModel) -> None:
    evidence = q_model.evidence(collate_pairs(PAIRS, "pair").tokens)

    assert evidence.log_probs is not None
    assert evidence.log_probs.requires_grad
    assert evidence.reference_log_probs is not None
    assert not evidence.reference_log_probs.requires_grad


def test_gradients_reach_the_adapter_only(q_model: QModel) -> None:
    q_model(collate_pairs(PAIRS, "batch").tokens).sum().backward()

    assert all("lora_" in name for name in gradients(q_model))


def test_the_mask_of_a_pair_by_hand() -> None:
    # Rows see columns: a prompt token, two tokens of one branch, one of the other.
    assert branch_mask(torch.tensor([[4, 3, 3, 4]])).int().tolist() == [
        [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]]
    ]


def test_log_probs_are_float32_whatever_type_is_the_default(q_model: QModel) -> None:
    batch = collate_pairs(PAIRS, "none").tokens
    expected = q_model.action_log_probs(batch)

    torch.set_default_dtype(torch.bfloat16)
    try:
        found = q_model.action_log_probs(batch)
    finally:
        torch.set_default_dtype(torch.float32)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
