"""What a model was trained on, carried from checkpoint to checkpoint."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_qagent.models.q_heads import QHead
from lit_qagent.models.specs import BackboneSpec
from lit_qagent.training.sharding import whole

_SPLIT = ("pairs_hash", "split_seed", "split_fractions")


def merge_lineage(current: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Add an earlier training to the lineage of a model that goes on from it.

    The tasks of both may not be evaluated on; where the pairs differ, the hashes of the earlier
    ones are kept under ``earlier_pairs``, and how they were split under ``earlier_splits``.

    Examples:
        >>> merge_lineage(
        ...     {"pairs_hash": "b", "task_ids": ["2"]}, {"pairs_hash": "a", "task_ids": ["1"]}
        ... )
        {'pairs_hash': 'b', 'task_ids': ['1', '2'], 'earlier_pairs': ['a']}
    """
    if not current or not earlier:
        return {**earlier, **current}
    hashes = [*earlier.get("earlier_pairs", []), earlier.get("pairs_hash")]
    merged = dict(current)
    merged["task_ids"] = sorted({*current.get("task_ids", []), *earlier.get("task_ids", [])})
    different = [value for value in hashes if value and value != current.get("pairs_hash")]
    if different:
        merged["earlier_pairs"] = different
    if splits := [split for split in splits_of(earlier) if split not in splits_of(current)]:
        merged["earlier_splits"] = [*current.get("earlier_splits", []), *splits]
    return merged


def splits_of(lineage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return how the pairs of each training were split, the last training's first."""
    last = {key: lineage[key] for key in _SPLIT if key in lineage}
    return [*([last] if len(last) == len(_SPLIT) else []), *lineage.get("earlier_splits", [])]


def identify(
    weights: Mapping[str, Tensor], spec: BackboneSpec, head: QHead, max_length: int
) -> dict[str, Any]:
    """Return what tells apart Q-models of equal lineage, so that their results never mix.

    Args:
        weights: What was trained.
        spec: How the base model is held: the same weights score otherwise in another precision.
        head: What makes Q of them, by settings that are no weights.
        max_length: Tokens of a history that are seen.
    """
    return {
        "backbone": spec.public_name,
        "head": head.kind,
        "head_settings": head.settings(),
        "weights_hash": hash_weights(weights),
        "dtype": spec.dtype,
        "quantization": spec.quantization,
        "max_length": max_length,
    }


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, whatever device they are on."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = whole(weights[name].detach()).cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
