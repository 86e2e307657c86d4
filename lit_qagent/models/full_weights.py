"""All weights of an LLM as safetensors, for models that were trained without an adapter."""

from pathlib import Path
from typing import TYPE_CHECKING

from lit_qagent.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

CONFIG_FILE = "config.json"


def save_weights(
    model: "PreTrainedModel", folder: Path, weights: dict[str, "Tensor"] | None = None
) -> None:
    """Write a folder that `load_weights` and transformers read; large models in several files.

    Args:
        model: The model.
        folder: Where to write.
        weights: Those of its weights that were trained, tied ones once; None takes those in it.
    """
    model.save_pretrained(folder, state_dict=weights and _completed(model, weights))


def _completed(model: "PreTrainedModel", weights: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Add the frozen weights, in the type of the others."""
    dtype = next(iter(weights.values())).dtype
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    return {n: p.detach().to("cpu", dtype) for n, p in frozen.items() if n not in weights} | weights


def load_weights(model: "PreTrainedModel", folder: Path, name: str) -> None:
    """Replace all weights of a model by those of a folder.

    Args:
        model: The base model.
        folder: What `save_weights` wrote.
        name: Of the base model, for messages.

    Raises:
        CheckpointError: The weights are damaged, incomplete, or of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    known = dict(model.named_parameters(remove_duplicate=False))
    filled: set[int] = set()
    try:
        for file in sorted(folder.glob("*.safetensors")):
            weights = load_file(file)
            keys = model.load_state_dict(weights, strict=False)
            if keys.unexpected_keys:
                raise KeyError(f"it has no {keys.unexpected_keys[0]!r}")
            filled |= {known[key].data_ptr() for key in weights if key in known}
    except (SafetensorError, RuntimeError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]  # torch names every tensor that does not fit
        raise CheckpointError(
            f"the weights in {str(folder)!r} cannot be put on {name!r} ({reason}); give the base "
            "model they were trained from, or export the checkpoint again"
        ) from error
    # Tied weights are in the file once.
    missing = [key for key, weight in known.items() if weight.data_ptr() not in filled]
    if missing:
        raise CheckpointError(
            f"the weights in {str(folder)!r} lack {len(missing)} of {name!r}, such as "
            f"{missing[0]!r}; give the base model they were trained from, or export the "
            "checkpoint again"
        )
