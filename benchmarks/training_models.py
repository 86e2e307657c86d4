"""The models that bench_training.py trains: SmolLM2-135M, or shapes with random weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from flops import ModelSize

RANK, ALPHA, BETA = 16, 32, 0.1
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "rope_theta": 500000.0,
}
_PHI = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "partial_rotary_factor": 0.5,
    "vocab_size": 51200,
}
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama31-8b": ("llama", _LLAMA),
    "phi-1_5": ("phi", _PHI),
    "tiny": ("llama", _TINY),
}
MAX_POSITIONS = 32768


def small_model() -> str:
    from lit_qagent.policies.pretrained import resolve_model

    return resolve_model("SmolLM2-135M-Instruct")


def load_model(
    shape: str | None, *, layers: int | None, device: str, dtype: str, attention: str
) -> Any:  # noqa: ANN401
    """Return a causal language model; a shape has the same random weights each time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if shape is None:
        model = AutoModelForCausalLM.from_pretrained(
            small_model(), dtype=_DTYPES[dtype], attn_implementation=attention
        )
        return model.to(device)
    kind, values = SHAPES[shape]
    if layers is not None:
        values = _share(values, layers)
    config = AutoConfig.for_model(
        kind, **values, max_position_embeddings=MAX_POSITIONS, attention_dropout=0.0
    )
    with _made_on(device):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(
            config, dtype=_DTYPES[dtype], attn_implementation=attention
        )


def _share(values: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return a shape of fewer layers, and as much less of its vocabulary.

    With all words the output layer would cost as much as many layers, which it does not in the
    whole model.
    """
    words = values["vocab_size"] * layers // values["num_hidden_layers"]
    return {**values, "num_hidden_layers": layers, "vocab_size": words}


def load_q_model(
    shape: str | None, *, layers: int | None, device: str, dtype: str, checkpointing: bool
) -> Any:  # noqa: ANN401
    """Return our Q-model with the adapter that both sides have."""
    from peft import LoraConfig, get_peft_model

    from lit_qagent.models.attention import register_branch_attention
    from lit_qagent.models.backbone import Backbone
    from lit_qagent.models.q_heads import ImplicitQHead
    from lit_qagent.models.q_model import QModel
    from lit_qagent.models.specs import BackboneSpec

    attention = register_branch_attention()
    model = load_model(shape, layers=layers, device=device, dtype=dtype, attention=attention)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapted = get_peft_model(model, LoraConfig(**lora()))
    spec = BackboneSpec(name=shape or small_model(), dtype=dtype)  # type: ignore[arg-type]
    q_model = QModel(Backbone(adapted, spec), ImplicitQHead(beta=BETA)).to(device)
    fill_adapter(q_model.backbone.model)
    return q_model


def lora() -> dict[str, Any]:
    return {
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
    }


def fill_adapter(module: torch.nn.Module) -> None:
    """Give both sides the same weights: names sorted, one generator.

    A fresh adapter would give every pair the loss log 2 and prove nothing.
    """
    generator = torch.Generator().manual_seed(1)
    found = {name.split("base_model.")[-1]: p for name, p in module.named_parameters()}
    with torch.no_grad():
        for name in sorted(found):
            scale = found[name].shape[1] ** -0.5 if "lora_A" in name else 0.02
            if "lora_" in name:
                found[name].copy_(torch.randn(found[name].shape, generator=generator) * scale)


def size_of(model: torch.nn.Module, config: Any) -> ModelSize:  # noqa: ANN401
    """Count the weights of an adapted model."""
    layers = adapter = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
            if "lora_" in name:
                adapter += module.weight.numel()
            else:
                layers += module.weight.numel()
    heads = config.num_attention_heads
    return ModelSize(
        layer_weights=layers,
        adapter_weights=adapter,
        layers=config.num_hidden_layers,
        heads=heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        hidden_size=config.hidden_size,
        words=config.vocab_size,
    )


@contextmanager
def _made_on(device: str) -> Iterator[None]:
    with torch.device(device):
        yield


def tokenizer_folder(shape: str | None, folder: Path) -> str:
    """Return where the tokenizer is: the model's own, or one that is made."""
    from training_data import save_tokenizer

    return small_model() if shape is None else str(save_tokenizer(folder))
