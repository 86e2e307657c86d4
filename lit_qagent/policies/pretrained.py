"""From the name of a model to weights on disk: a folder, a hub id, or the built-in small model."""

from pathlib import Path

from lit_qagent.core.errors import ModelError
from lit_qagent.policies.smollm2 import HUB_ID, SMALL_MODEL, hub_answers, small_model_folder

_WEIGHTS = ("*.safetensors", "*.bin")


def resolve_model(name: str) -> str:
    """Return what ``from_pretrained`` and vLLM take: a folder that was checked, or a hub id.

    ``SmolLM2-135M-Instruct`` always gives a folder, also where no model hub can be reached (see
    `lit_qagent.policies.smollm2`); its first use may download and convert for a minute.

    Args:
        name: ``SmolLM2-135M-Instruct``, a folder, or a hub id such as ``Qwen/Qwen3-8B``.

    Raises:
        ModelError: No such folder or hub model, or the hub cannot be reached.
    """
    if name in (SMALL_MODEL, HUB_ID):
        return str(small_model_folder())
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return str(folder)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(
            f"model folder {name!r} does not exist; give a folder with config.json and weights, "
            f"a hub id, or {SMALL_MODEL!r}"
        )
    _check_hub(name)
    return name


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is not a model."""
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model folder {str(folder)!r} has no config.json; give the folder that "
            "save_pretrained wrote (an adapter alone is not a model)"
        )
    if not any(True for pattern in _WEIGHTS for _ in folder.glob(pattern)):
        raise ModelError(
            f"model folder {str(folder)!r} has no weights (*.safetensors); "
            "finish its download or save the model again"
        )


def _check_hub(name: str) -> None:
    """Refuse a hub id whose configuration can neither be fetched nor found in the hub's cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        hf_hub_download(name, "config.json", local_files_only=not hub_answers())
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"model {name!r} is no folder, and the model hub cannot be reached (or HF_HUB_OFFLINE "
            f"is set); give a folder, use {SMALL_MODEL!r}, or download it where there is a network"
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"model {name!r} is gated; accept its terms on the hub and set HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"model {name!r} is neither a folder nor a model on the hub; check the spelling, "
            "and set HF_TOKEN if it is private"
        ) from error
    except EntryNotFoundError as error:
        raise ModelError(
            f"hub model {name!r} has no config.json, so it is not a transformers model; "
            "give one that is"
        ) from error
