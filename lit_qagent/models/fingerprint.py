"""Is this the base model that a Q-model was trained on? Its name may stand for other weights."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from lit_qagent.core.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lit_qagent.models.backbone import Backbone

BASE_KEY = "base_weights"  # in a lineage; what `fingerprint` returns
_NUM_ROWS = 256


def fingerprint(backbone: "Backbone") -> str | None:
    """Return `hash_of_base` of the base model; None of a whole model whose base is not known."""
    if backbone.is_adapted:
        return hash_of_base(backbone.language_model)
    return backbone.base_weights


def hash_of_base(model: "PreTrainedModel") -> str:
    """Return a hash of weights that neither an adapter nor quantisation changes.

    These are the first rows of the embeddings and the vectors outside of the blocks (the last
    norm), rounded to bfloat16, so that the type in which the model is held does not matter. Another
    model, or the same one trained further, has others; one of which only the matrices within blocks
    were changed is not told apart.
    """
    embeddings = model.get_input_embeddings()
    sample = {"embeddings": embeddings.weight[:_NUM_ROWS]}  # type: ignore[index]
    sample |= {
        name: weight
        for name, weight in model.named_parameters()
        if weight.dim() == 1 and "lora_" not in name and not any(map(str.isdigit, name.split(".")))
    }
    digest = hashlib.sha256()
    for name in sorted(sample):
        rounded = sample[name].detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(f"{name} {tuple(rounded.shape)}".encode())
        digest.update(rounded.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_base(backbone: "Backbone", lineage: Mapping[str, Any]) -> None:
    """Refuse a base model whose weights are not those of training.

    Args:
        backbone: The model now.
        lineage: Of the Q-model; one without a fingerprint passes.

    Raises:
        CheckpointError: They differ.
    """
    trained, now = lineage.get(BASE_KEY), fingerprint(backbone)
    if trained and now and trained != now:
        raise CheckpointError(
            f"{backbone.spec.name!r} has other weights (fingerprint {now[:12]}) than the model of "
            f"that name that the Q-model was trained on ({trained[:12]}), so its values would be "
            "wrong; give that model (see backbone.revision), or train again"
        )
