"""One copy of the weights: adapter on is the policy, adapter off exactly the untouched model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lit_qagent.core.errors import ConfigError, ModelError
from lit_qagent.data.batch import TokenBatch, collate_sequences
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models import sharing
from lit_qagent.models.attention import branch_mask
from lit_qagent.models.backbone import build_backbone
from lit_qagent.models.sharing import Way, keeps_branches_apart
from lit_qagent.models.specs import BackboneSpec, LoraSpec
from tests.reference import reference_action_log_prob
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

PROMPT = list(range(40, 70))
ACTIONS = ([71, 72, 2], [71, 90, 91, 92, 2])
WAYS: tuple[Way, ...] = ("branches", "mask")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def one_row() -> TokenBatch:
    return collate_sequences([[TokenSequence(PROMPT, action) for action in ACTIONS]])


def base_log_probs(model: Path) -> Tensor:
    """Log-probabilities under the model as it lies on disk."""
    base = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        return torch.stack([reference_action_log_prob(base, PROMPT, a) for a in ACTIONS])


def test_the_reference_is_the_untouched_base_whatever_the_adapter(model: Path) -> None:
    q_model = tiny_q_model(tiny_spec(model))

    with torch.no_grad():
        evidence = q_model.evidence(one_row())

    assert evidence.log_probs is not None
    assert evidence.reference_log_probs is not None
    torch.testing.assert_close(
        evidence.reference_log_probs, base_log_probs(model), atol=1e-4, rtol=0
    )
    assert (evidence.log_probs - evidence.reference_log_probs).abs().min() > 0.01


def test_a_fresh_adapter_changes_nothing(model: Path) -> None:
    backbone = build_backbone(tiny_spec(model), LoraSpec(rank=2))

    assert backbone.is_untrained
    assert not tiny_q_model(tiny_spec(model)).backbone.is_untrained


def test_only_the_adapter_is_trainable_also_after_the_reference(model: Path) -> None:
    backbone = tiny_q_model(tiny_spec(model)).backbone

    with backbone.reference():
        pass

    trainable = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert len(trainable) == 2 * 7 * 2  # A and B, seven linear layers, two blocks
    assert all("lora_" in name for name in trainable)


def test_a_frozen_adapter_stays_frozen_after_the_reference(model: Path) -> None:
    backbone = tiny_q_model(tiny_spec(model)).backbone.requires_grad_(False)

    with pytest.raises(RuntimeError, match="inside"), backbone.reference():
        raise RuntimeError("inside")

    assert not any(p.requires_grad for p in backbone.parameters())


def test_eager_attention_gives_the_same_numbers(model: Path) -> None:
    sdpa, eager = (tiny_q_model(tiny_spec(model, attention=a)) for a in ("sdpa", "eager"))

    with torch.no_grad():
        torch.testing.assert_close(sdpa(one_row()), eager(one_row()), atol=1e-5, rtol=0)


def test_gradient_checkpointing_recomputes_layers_and_changes_no_gradient(model: Path) -> None:
    plain = tiny_q_model(tiny_spec(model))
    checkpointed = tiny_q_model(tiny_spec(model, gradient_checkpointing=True)).eval()
    calls: list[int] = []
    layer = checkpointed.backbone.language_model.get_submodule("model.layers.0.mlp")
    assert checkpointed.backbone.shares_prefixes(10)  # tries it out once
    layer.register_forward_pre_hook(lambda *_: calls.append(1))

    for q_model in (plain, checkpointed):
        q_model(one_row()).sum().backward()

    assert len(calls) == 3  # reference, policy, and again in the backward pass
    for expected, found in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad)


def test_dropout_of_the_base_model_is_off(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    change_config(folder, attention_dropout=0.5)
    q_model = tiny_q_model(tiny_spec(folder))

    with torch.no_grad():
        assert torch.equal(q_model(one_row()), q_model(one_row()))


def test_dropout_by_another_name_is_off(tmp_path: Path) -> None:
    names: dict[str, Any] = {
        "hidden_dropout_prob": 0.5,
        "attention_probs_dropout_prob": 0.5,
        "layerdrop": 0.5,
    }
    folder = save_tiny_model(tmp_path, kind="biogpt", **names)
    q_model = tiny_q_model(tiny_spec(folder))

    with torch.no_grad():
        assert torch.equal(q_model(one_row()), q_model(one_row()))
    config = q_model.backbone.language_model.config
    assert [getattr(config, name) for name in names] == [0, 0, 0]


def test_dropout_of_a_configuration_inside_another_is_off(tmp_path: Path) -> None:
    attention = {"attn_pdrop": 0.5, "kv_n_heads": 1, "rope_theta": 1e4, "clip_qkv": 8}
    experts = {"ffn_hidden_size": 64, "moe_num_experts": 2, "moe_top_k": 1, "hidden_size": 32}
    size: dict[str, Any] = {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 2048}
    folder = save_tiny_model(
        tmp_path, kind="dbrx", attn_config=attention, ffn_config=experts, **size
    )
    q_model = tiny_q_model(tiny_spec(folder))

    with torch.no_grad():
        assert torch.equal(q_model(one_row()), q_model(one_row()))
    assert q_model.backbone.language_model.config.attn_config.attn_pdrop == 0


def test_dropout_that_no_setting_names_is_off(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    plain = LlamaMLP.__init__

    def noisy(self: LlamaMLP, config: object) -> None:
        plain(self, config)  # type: ignore[no-untyped-call]
        self.act_fn = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Dropout(0.5))

    monkeypatch.setattr(LlamaMLP, "__init__", noisy)
    q_model = tiny_q_model(tiny_spec(model))

    with torch.no_grad():
        assert torch.equal(q_model(one_row()), q_model(one_row()))


def test_a_model_with_windows_does_not_share_prefixes(model: Path) -> None:
    q_model, windowed = tiny_q_model(tiny_spec(model)), tiny_q_model(tiny_spec(model))

    kinds = ["full_attention", "sliding_attention"]
    windowed.backbone.language_model.config.layer_types = kinds

    assert q_model.backbone.shares_prefixes(100)
    assert not windowed.backbone.shares_prefixes(100)
    with pytest.raises(ConfigError, match=r"cannot share prefixes .* set data.sharing to none"):
        windowed(one_row())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_is_not_taken_for_branches_that_see_each_other(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Deep, and with an adapter that has learnt a lot: bfloat16 rounds its states roughly.
    folder = save_tiny_model(tmp_path, num_hidden_layers=12)
    backbone = tiny_q_model(tiny_spec(folder, dtype=dtype)).backbone
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            parameter.data *= 5

    assert all(keeps_branches_apart(backbone, way) for way in WAYS)

    monkeypatch.setattr(
        sharing, "branch_mask", lambda ends: torch.ones_like(branch_mask(ends)).tril()
    )
    assert not keeps_branches_apart(backbone, "mask")


def test_the_context_is_the_models(model: Path) -> None:
    assert tiny_q_model(tiny_spec(model)).backbone.context == 2048


def test_an_adapter_for_layers_that_are_not_there_is_refused(model: Path) -> None:
    with pytest.raises(ModelError, match=r"target_modules \['c_attn'\] do not fit .* all-linear"):
        build_backbone(tiny_spec(model), LoraSpec(target_modules=["c_attn"]))


def test_a_model_that_changes_its_logits_afterwards_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    plain = LlamaForCausalLM.forward

    def scaled(self: LlamaForCausalLM, **inputs: Tensor) -> object:
        output = plain(self, **inputs)
        output.logits = output.logits * 0.5
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    with pytest.raises(ModelError, match="changes its logits after the output layer"):
        build_backbone(tiny_spec(model), LoraSpec())


def test_a_model_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    change_config(folder, model_type="vit")

    with pytest.raises(ModelError, match="cannot be loaded as BackboneSpec"):
        build_backbone(tiny_spec(folder), LoraSpec())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"rank": 0}, "rank must be >= 1, got 0"),
        ({"alpha": 0}, "alpha must be above 0, got 0"),
        ({"target_modules": ["q_proj", "lm_head"]}, "must not contain lm_head"),
    ],
)
def test_adapters_out_of_range_are_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraSpec(**spec)  # type: ignore[arg-type]


def test_public_names_hold_no_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()

    assert BackboneSpec(name=str(tmp_path / "my-model")).public_name == "my-model"
    assert BackboneSpec(name="Qwen/Qwen3-8B").public_name == "Qwen/Qwen3-8B"
    assert BackboneSpec().public_name == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # bitsandbytes and triton warn where there is no GPU
def test_a_4_bit_model_trains_its_adapter(model: Path) -> None:
    spec = tiny_spec(model, quantization="nf4")
    q_model = tiny_q_model(spec)
    kinds = {type(p).__name__ for p in q_model.parameters()}
    optimizer = torch.optim.SGD([p for p in q_model.parameters() if p.requires_grad], lr=0.1)

    with torch.no_grad():
        scored = q_model.eval()(one_row())
    before = q_model.train()(one_row())
    (-before[0]).backward()
    optimizer.step()
    after = q_model(one_row())

    assert "Params4bit" in kinds
    assert torch.equal(scored, before)
    assert after[0] > before[0]


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")
