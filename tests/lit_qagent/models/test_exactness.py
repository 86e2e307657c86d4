"""Packed rows are exact for the usual kinds of models; models they are wrong for are found out."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from lit_qagent.data.batch import PairBatch, PairTokens, Sharing, collate_pairs
from lit_qagent.data.planning import BatchPlan, Limits, group_pairs
from lit_qagent.data.rendered import render_pair
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.models.backbone import build_backbone
from lit_qagent.models.q_model import QModel
from lit_qagent.models.sharing import longest_shared
from lit_qagent.models.specs import LoraSpec
from lit_qagent.policies.chat import load_renderer
from tests.pair_folder import make_episodes, make_pair
from tests.reference import reference_action_log_prob
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32}  # absolute positions, but it takes ours
KINDS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in ("llama", "phi", "phi3", "qwen2", "qwen3")),
    ("opt", {**OPT}),
    ("gptj", {"n_embd": 32, "n_head": 2, "n_layer": 2, "rotary_dim": 8}),  # eager attention only
    ("falcon", {}),  # looks its attention up by the name
    ("stablelm", {}),  # hands no branches on to its attention
]
# Three pairs of one trajectory, one from elsewhere, and whole episodes.
PAIRS = [make_pair(0, 0), make_pair(0, 1), make_pair(0, 3), make_pair(1, 2), make_episodes(0)]


def gradients(q_model: QModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.autograd.backward(loss)
    found = {n: p.grad.clone() for n, p in q_model.named_parameters() if p.grad is not None}
    q_model.zero_grad()
    return found


@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_log_probs_and_gradients_equal_the_pair_by_pair_reference(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    save_tiny_model(tmp_path, kind=kind, **{"initializer_range": 0.1, **changes})
    q_model = tiny_q_model(tiny_spec(tmp_path))
    renderer = SequenceRenderer(load_renderer(str(tmp_path)), 2048)
    pairs = [tokens for pair in PAIRS if (tokens := render_pair(pair, renderer)) is not None]
    sequences = [sequence for pair in pairs for sequence in (pair.chosen, pair.rejected)]
    weights = torch.linspace(-1, 1, len(sequences))
    network = q_model.backbone.model

    naive = torch.stack([reference_action_log_prob(network, *one) for one in sequences])
    expected = gradients(q_model, (naive * weights).sum() / len(pairs))

    assert q_model.backbone.shares_prefixes(2048)
    for sharing in get_args(Sharing):
        found = q_model.action_log_probs(collate_pairs(pairs, sharing).tokens)
        ours = gradients(q_model, (found * weights).sum() / len(pairs))
        torch.testing.assert_close(found, naive, atol=1e-5, rtol=1e-6)
        # Relative to the largest entry, as sums of thousands of terms are.
        for name, gradient in expected.items():
            scale = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(ours[name] / scale, gradient / scale, atol=1e-5, rtol=1e-5)


LIMIT = 142  # pairs have 97 to 282 tokens; in some the chosen side alone is within the limit
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.5, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0],
}
LONG |= {"long_factor": [4.0] * 8, "original_max_position_embeddings": LIMIT}
BOTH = ["full_attention", "sliding_attention"]
LIMITED: list[tuple[str, dict[str, Any]]] = [
    ("phi3", {"sliding_window": LIMIT}),
    ("mistral", {"sliding_window": LIMIT}),
    ("qwen2", {"sliding_window": LIMIT, "use_sliding_window": True, "layer_types": BOTH}),
    ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": LIMIT}),
    ("llama", {"rope_parameters": {**LONG, "rope_theta": 10000.0}, "head_dim": 16}),
]


def planned(
    pairs: list[PairTokens], longest_shared: int, sharing: Sharing
) -> list[tuple[list[int], PairBatch]]:
    limits = Limits(sharing, 4, longest_shared=longest_shared)
    plan = BatchPlan(pairs, group_pairs(pairs), limits=limits)
    return [
        (batch, collate_pairs([pairs[i] for i in batch], plan.sharing_of(batch)))
        for batch in plan.in_order()
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("kind", "changes"), LIMITED)
def test_short_pairs_are_packed_and_long_ones_not_and_both_are_exact(
    kind: str, changes: dict[str, Any], attention: str, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path, kind=kind, **{"initializer_range": 0.1, **changes})
    q_model = tiny_q_model(tiny_spec(tmp_path, attention=attention))
    renderer = SequenceRenderer(load_renderer(str(tmp_path)), 2048)
    drafts = [*PAIRS, make_pair(1, 0), make_pair(2, 0), make_pair(2, 4)]
    pairs = [tokens for pair in drafts if (tokens := render_pair(pair, renderer)) is not None]
    network = q_model.backbone.model
    with torch.no_grad():
        sides = [
            [reference_action_log_prob(network, *one) for one in (p.chosen, p.rejected)]
            for p in pairs
        ]
    naive = torch.tensor(sides)

    assert q_model.backbone.longest_shared == LIMIT
    is_long = [pair.longest > LIMIT for pair in pairs]
    assert {True, False} == set(is_long)
    for sharing in get_args(Sharing):
        for indices, batch in planned(pairs, LIMIT, sharing):
            shared = sharing != "none" and not any(is_long[i] for i in indices)
            assert batch.tokens.is_branched == shared
            found = q_model.action_log_probs(batch.tokens).view(-1, 2)
            torch.testing.assert_close(found, naive[indices], atol=1e-5, rtol=1e-6)
    # Sequences of all lengths beside each other, none of them shared.
    found = q_model.action_log_probs(collate_pairs(pairs, "none").tokens).view(-1, 2)
    torch.testing.assert_close(found, naive, atol=1e-5, rtol=1e-6)


def test_dynamic_rope_shares_as_far_as_it_is_not_scaled(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    folder = save_tiny_model(tmp_path, rope_parameters=rope, max_position_embeddings=LIMIT)
    backbone = tiny_q_model(tiny_spec(folder)).backbone

    assert backbone.longest_shared == backbone.context == LIMIT


@pytest.mark.parametrize(
    ("kind", "changes", "length"),
    [
        ("mistral", {"sliding_window": 64}, 65),  # a window that is left
        ("bloom", {}, 100),  # ALiBi: distances counted in the row
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, 100),  # convolution over the row
    ],
)
def test_models_that_cannot_share_are_found_out(
    kind: str, changes: dict[str, Any], length: int, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path, kind=kind, **changes)

    assert not tiny_q_model(tiny_spec(folder)).backbone.shares_prefixes(length)


def test_a_window_over_the_columns_of_a_row_is_found_out(tmp_path: Path) -> None:
    # 44 tokens a sequence stay within the window, a row of several does not.
    layers: dict[str, Any] = {
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
    }
    folder = save_tiny_model(tmp_path, kind="gpt_neo", window_size=64, **layers)

    backbone = tiny_q_model(tiny_spec(folder, attention="eager")).backbone

    assert backbone.way == "mask"  # the try does not tell
    assert not backbone.shares_prefixes(44)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"attention_window_size": 64}, 0),
        ({"attention_chunk_size": 64}, 0),
        ({"attention_chunk_size": None, "conv_window": 0}, sys.maxsize),
        ({"sliding_window": 64, "layer_types": ["full_attention"]}, sys.maxsize),
        ({"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 3}, 64),
        (
            {"sliding_window": None, "use_sliding_window": False, "max_window_layers": 3},
            sys.maxsize,
        ),
    ],
)
def test_what_configurations_say_of_windows(config: dict[str, Any], longest: int) -> None:
    assert longest_shared(SimpleNamespace(**config)) == longest


def test_a_recurrent_model_is_found_out(tmp_path: Path) -> None:
    spec = tiny_spec(save_tiny_model(tmp_path, kind="mamba", state_size=8))

    backbone = build_backbone(spec, LoraSpec(rank=2, target_modules=["in_proj"]))

    assert not backbone.shares_prefixes(100)


def test_a_window_that_is_never_left_is_none(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, kind="mistral", sliding_window=64)

    assert tiny_q_model(tiny_spec(folder)).backbone.shares_prefixes(64)
