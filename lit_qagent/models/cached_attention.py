"""Attention over several histories at once, each with keys and values kept from earlier calls.

The new tokens of all groups lie one behind the other in a single row, so nothing is padded; the
queries of a group see the group's own tokens only, kept ones included.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lit_qagent.models.attention import Segment, attend_segments


@dataclass(kw_only=True, slots=True)
class LayerMemory:
    """Keys and values of the tokens of one group, layer by layer; empty for a new history.

    Attributes:
        keys: Layer -> [key heads, K, D], in the order of the group's prefix trie.
        values: Layer -> [key heads, K, D].
    """

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Memory of all layers."""
        tensors = (*self.keys.values(), *self.values.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def select(self, nodes: Tensor) -> "LayerMemory":
        """Return a copy that holds the given tokens only, in the given order."""
        return LayerMemory(
            keys={layer: part.index_select(1, nodes) for layer, part in self.keys.items()},
            values={layer: part.index_select(1, nodes) for layer, part in self.values.items()},
        )

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append new tokens to a layer and return all of its keys and values."""
        if layer in self.keys:
            key = torch.cat([self.keys[layer], key], dim=1)
            value = torch.cat([self.values[layer], value], dim=1)
        self.keys[layer], self.values[layer] = key, value
        return key, value


@dataclass(kw_only=True, slots=True)
class Group:
    """The new tokens of one history in the row, and what they see.

    Attributes:
        first: Column of the first new token.
        num_new: New tokens.
        num_kept: Tokens in ``memory`` before the call.
        segments: The new tokens, counted from ``num_kept`` on.
        memory: Grows by the new tokens during the call.
    """

    first: int
    num_new: int
    num_kept: int
    segments: list[Segment]
    memory: LayerMemory


def attend_groups(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    groups: list[Group],
    scaling: float | None,
) -> Tensor:
    """Return [1, T, heads, D] for a row of groups; see `attention.branch_attention`."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    repeats = query.shape[1] // key.shape[1]
    outputs = []
    for group in groups:
        columns = slice(group.first, group.first + group.num_new)
        keys, values = group.memory.extend(layer, key[0, :, columns], value[0, :, columns])
        outputs.append(
            attend_segments(
                query[0, :, columns],
                keys,
                values,
                group.segments,
                scaling=scaling,
                repeats=repeats,
                offset=group.num_kept,
            )
        )
    return torch.cat(outputs, dim=1).transpose(0, 1)[None].contiguous()


def cached_arguments(groups: list[Group], device: torch.device | str) -> dict[str, Any]:
    """Return what the decoder is called with, so that its attention gets the groups."""
    # A four-dimensional mask is handed on as it is; the groups stand in its place.
    return {"groups": groups, "attention_mask": torch.ones(1, 1, 1, 1, device=device).bool()}
