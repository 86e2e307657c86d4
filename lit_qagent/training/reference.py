"""Log-probabilities under the reference: computed once, packed, kept on disk under a key.

The key is a hash of everything they depend on (the frozen weights and every token), so an entry is
either right or not found.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_qagent.core.folders import cache_folder
from lit_qagent.data.batch import PairTokens
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.rendering import RENDERING_VERSION
from lit_qagent.models.q_model import QModel
from lit_qagent.training.lineage import hash_weights

_log = logging.getLogger(__name__)
_SPLITS = ("train", "valid")
_NO_MATTER = ("_name_or_path", "transformers_version", "use_cache")  # of a configuration


def fill_reference(
    data: PreferenceDataModule,
    model: QModel,
    *,
    precision: str = "32-true",
    write: bool = True,
    agree: Callable[[bool], bool] = bool,
) -> None:
    """Give the pairs that are trained and validated on their reference log-probabilities.

    Args:
        data: Pairs, after its setup.
        model: Its backbone with the adapter off is the reference; where all weights are trained,
            the base model, which is loaded for this.
        precision: The trainer's, in whose context this is called: the reference has to be rounded
            as training rounds.
        write: Keep what was computed; one of several processes does.
        agree: Tells whether a thing is so in all processes. Where one lacks the cache, as on
            another machine, all compute: a model in shards computes in all of them or in none.
    """
    with model.backbone.borrowed_original():
        _fill(data, model, hash_base(model, precision), write=write, agree=agree)


def _fill(
    data: PreferenceDataModule,
    model: QModel,
    base: str,
    *,
    write: bool,
    agree: Callable[[bool], bool],
) -> None:
    for split in (*_SPLITS, *data.also):
        pairs = data.pairs_of(split)
        if not pairs:
            continue
        path = cache_folder() / "reference" / f"{cache_key(base, pairs)}.safetensors"
        found = _read(path, len(pairs))
        if not agree(found is not None) or found is None:
            found = _compute(data, model, split, len(pairs))
            if write:
                _write(path, found)
        data.remember_reference(split, found.tolist())


def hash_base(model: QModel, precision: str) -> str:
    """Return a hash of the base model as it computes.

    That is its name, configuration, weights and their types, and the trainer's precision.
    """
    spec = model.backbone.spec
    base = model.backbone.original or model.backbone
    # Unlike the parameters the state has the scales of quantised weights.
    frozen = {n: t for n, t in base.state_dict().items() if "lora_" not in n}
    config = model.backbone.language_model.config.to_dict()
    facts = {name: value for name, value in config.items() if name not in _NO_MATTER}
    name = f"{spec.public_name} {spec.revision} {spec.dtype} {spec.quantization} {precision}"
    text = f"{name} {json.dumps(facts, sort_keys=True, default=str)} {hash_weights(frozen)}"
    return hashlib.sha256(text.encode()).hexdigest()


def cache_key(base: str, pairs: Sequence[PairTokens]) -> str:
    """Return the key of the pairs' log-probabilities under a base model."""
    digest = hashlib.sha256(f"{base} {RENDERING_VERSION}".encode())
    for pair in pairs:
        for ids in (pair.chosen.prompt_ids, pair.chosen.action_ids, pair.rejected.action_ids):
            digest.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
        if pair.chosen.observed or pair.rejected.observed:
            digest.update(repr((pair.chosen.observed, pair.rejected.observed)).encode())
    return digest.hexdigest()


def _compute(data: PreferenceDataModule, model: QModel, split: str, num_pairs: int) -> Tensor:
    device = model.backbone.language_model.device
    found = torch.full((num_pairs, 2), float("nan"), dtype=torch.float32)
    _log.info("reference log-probabilities of %d %s pairs: computing once", num_pairs, split)
    for indices, batch in data.reference_batches(split):
        found[indices] = model.reference_log_probs(batch.tokens.to(device)).view(-1, 2).cpu()
    return found


def _read(path: Path, num_pairs: int) -> Tensor | None:
    """Return what is kept under a path, or None if it is not there or damaged."""
    try:
        found = load_file(path)["reference"]
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError) as error:
        _log.warning("reference cache %s is damaged (%s); computing it again", path, error)
        return None
    if found.shape != (num_pairs, 2) or not found.isfinite().all():
        _log.warning("reference cache %s has values missing; computing it again", path)
        return None
    return found


def _write(path: Path, values: Tensor) -> None:
    """Write with one rename, so that another process never reads half a file.

    The name before it is this call's own: parallel runs on the same pairs write the same entry.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        save_file({"reference": values}, scratch)
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)
