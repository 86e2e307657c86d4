"""Models that our attention cannot be put into run by their own, with the right numbers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lit_qagent.core.errors import ModelError
from lit_qagent.core.records import History, Message
from lit_qagent.data.batch import collate_sequences
from lit_qagent.data.rendering import SequenceRenderer, TokenSequence
from lit_qagent.models.attention import branch_attention
from lit_qagent.models.scorer import QScorer
from lit_qagent.policies.chat import load_renderer
from tests.reference import reference_action_log_prob
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

NEO = {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}
OF_THEIR_OWN: list[tuple[str, dict[str, Any]]] = [
    ("gpt_neo", NEO),
    ("gptj", {"n_embd": 32, "n_head": 2, "n_layer": 2, "rotary_dim": 8}),
    ("falcon", {}),
    ("falcon", {"alibi": True}),
    ("bloom", {}),
    ("gpt_oss", {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 16}),  # sinks
]


@pytest.mark.parametrize(("kind", "changes"), OF_THEIR_OWN)
def test_by_default_they_run_by_their_own_and_that_is_said(
    kind: str, changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_tiny_model(tmp_path, kind=kind, **changes)
    q_model = tiny_q_model(tiny_spec(folder))
    sequences = [TokenSequence(list(range(40, 70)), [71 + i, 80, 2]) for i in range(2)]
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")

    with torch.no_grad():
        expected = torch.stack([reference_action_log_prob(plain, *one) for one in sequences])
        found = q_model.reference_log_probs(collate_sequences([[one] for one in sequences]))

    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert q_model.backbone.attention == "eager"
    assert not q_model.backbone.keeps_histories
    said = [r.getMessage() for r in caplog.records if "takes no attention but its own" in r.message]
    assert len(said) == 1


@pytest.mark.parametrize("name", ["s_aux", "softcap"])
def test_what_our_attention_does_not_compute_is_refused(name: str) -> None:
    one = torch.randn(1, 2, 5, 8)
    given: dict[str, Any] = {name: torch.ones(2)}

    with pytest.raises(ModelError, match=rf"Identity hands {name} .* set it to eager"):
        branch_attention(torch.nn.Identity(), one, one, one, None, **given)


def test_soft_capped_attention_is_refused_and_runs_as_eager(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, kind="gemma2", head_dim=16, final_logit_softcapping=None)

    with pytest.raises(ModelError, match="Gemma2Attention hands softcap"):
        tiny_q_model(tiny_spec(folder))
    assert tiny_q_model(tiny_spec(folder, attention="eager")).backbone.way == "mask"


def test_a_cap_on_logits_is_refused_also_where_they_are_too_small_to_tell(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "head_dim": 16,
        "attn_logit_softcapping": None,
        "initializer_range": 1e-4,
    }
    folder = save_tiny_model(tmp_path, kind="gemma2", **changes)

    with pytest.raises(ModelError, match="changes its logits after the output layer"):
        tiny_q_model(tiny_spec(folder))


def test_what_hands_nothing_on_shares_by_a_mask_and_keeps_no_histories(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_tiny_model(tmp_path, kind="stablelm")
    q_model = tiny_q_model(tiny_spec(folder))
    renderer = SequenceRenderer(load_renderer(str(folder)), 2048)
    history = History(head=(Message(role="user", content="Where is the key?"),))

    scores = asyncio.run(QScorer(q_model, renderer).score(history, ["look", "open door"]))

    alone = [[one] for one in renderer.render(history, ["look", "open door"])]
    with torch.no_grad():
        expected = q_model(collate_sequences(alone))
    torch.testing.assert_close(torch.tensor(scores), expected, atol=1e-5, rtol=0)
    assert q_model.backbone.way == "mask"
    assert not q_model.backbone.keeps_histories
    assert "every decision computes its whole history again" in caplog.text
