"""A Q-model on the tiny LLM whose adapter is not zero: with a fresh one every Q is 0."""

from pathlib import Path

import torch

from lit_qagent.models.backbone import build_backbone
from lit_qagent.models.q_heads import ImplicitQHead, QHead
from lit_qagent.models.q_model import QModel
from lit_qagent.models.specs import BackboneSpec, LoraSpec


def tiny_spec(folder: Path, **changes: object) -> BackboneSpec:
    """Return the spec of a tiny model in float32, in which sums can be compared exactly."""
    values: dict[str, object] = {"name": str(folder), "dtype": "float32", **changes}
    return BackboneSpec(**values)  # type: ignore[arg-type]


def tiny_q_model(spec: BackboneSpec, *, head: QHead | None = None, rank: int = 4) -> QModel:
    """Return a Q-model with a random adapter, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        backbone = build_backbone(spec, LoraSpec(rank=rank, alpha=8))
    q_model = QModel(backbone, head or ImplicitQHead(beta=0.1))
    shake_adapter(q_model)
    return q_model


def shake_adapter(module: torch.nn.Module) -> None:
    """Give the zero half of every adapter weights that change what the model says."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            noise = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.data.copy_(noise)
