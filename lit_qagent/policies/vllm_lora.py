"""A LoRA adapter on the model of a vLLM engine: every request of the engine goes through it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_qagent.core.errors import ModelError

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

_CONFIG_FILE = "adapter_config.json"
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM makes room for


def lora_args(folder: Path) -> dict[str, Any]:
    """Return the engine arguments that make room for an adapter.

    Args:
        folder: Where PEFT has saved it.

    Raises:
        ModelError: No adapter, not one of LoRA, or of a rank that vLLM does not take.
    """
    path = folder / _CONFIG_FILE
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("peft_type")
        rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    except FileNotFoundError:
        raise ModelError(
            f"VLLMPolicy.lora: {str(folder)!r} has no {_CONFIG_FILE}; give the folder that holds "
            "the adapter, such as the adapter/ of a checkpoint"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"VLLMPolicy.lora: {path} is no configuration of a LoRA adapter "
            f"({type(error).__name__}: {error}); save the adapter again with PEFT"
        ) from error
    if kind != "LORA":
        raise ModelError(
            f"VLLMPolicy.lora: {path} is of type {kind!r}, expected 'LORA'; merge the adapter into "
            "its model and give the merged folder as model"
        )
    room = next((each for each in _RANKS if each >= rank), None)
    if room is None:
        raise ModelError(
            f"VLLMPolicy.lora: {path} has rank {rank}, vLLM takes at most {_RANKS[-1]}; merge the "
            "adapter into its model and give the merged folder as model"
        )
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}


def lora_request(folder: str) -> "LoRARequest":
    """Return what names the adapter to vLLM."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name="policy", lora_int_id=1, lora_path=folder)
