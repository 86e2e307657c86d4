"""Attention over several histories at once, each with keys and values kept from earlier calls.

The new tokens of all groups lie one behind the other in a single row, so nothing is padded; the
queries of a group see the group's own tokens only, kept ones included.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lit_qagent.models.attention import Segment


@dataclass(kw_only=True, slots=True)
class LayerMemory:
    """Keys and values of one history in all layers: one tensor, with room for what is new.

    Attributes:
        num_layers: L, layers of the model.
        num_kept: Tokens that are there before a call.
        num_new: Tokens that the call adds.
        tensor: [L, 2, key heads, num_kept + num_new, D]; keys at 0, values at 1, tokens in the
            order of the history's prefix trie. None until a new history meets its first layer.
    """

    num_layers: int
    num_new: int
    num_kept: int = 0
    tensor: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the tensor."""
        return 0 if self.tensor is None else self.tensor.numel() * self.tensor.element_size()

    def select(self, nodes: Tensor, num_new: int) -> "LayerMemory":
        """Return a copy with the given tokens only, in the given order, and room for new ones."""
        assert self.tensor is not None, "nothing was computed yet"
        layers, two, heads, _, width = self.tensor.shape
        kept = len(nodes)
        tensor = self.tensor.new_empty(layers, two, heads, kept + num_new, width)
        for old, new in zip(self.tensor, tensor, strict=True):  # by layer: less memory at once
            new[:, :, :kept] = old.index_select(2, nodes)
        return LayerMemory(num_layers=layers, num_new=num_new, num_kept=kept, tensor=tensor)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens of a layer; returns all its keys and values, [key heads, K, D]."""
        if self.tensor is None:
            heads, _, width = key.shape
            self.tensor = key.new_empty(self.num_layers, 2, heads, self.num_new, width)
        keys, values = self.tensor[layer]
        keys[:, self.num_kept :] = key
        values[:, self.num_kept :] = value
        return keys, values


@dataclass(kw_only=True, slots=True)
class Group:
    """The new tokens of one history in the row, and what they see.

    Attributes:
        first: Column of the first new token.
        segments: The new tokens, counted from those kept on.
        memory: Filled with the new tokens during the call.
    """

    first: int
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
    outputs = []
    for group in groups:
        memory = group.memory
        columns = slice(group.first, group.first + memory.num_new)
        keys, values = memory.extend(layer, key[0, :, columns], value[0, :, columns])
        before = memory.num_kept - group.first  # a token's place in the trie and its column
        for segment in group.segments:
            part = query[0, :, segment.start - before : segment.end - before]
            outputs.append(_attend_segment(part, keys, values, segment, scaling))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None].contiguous()


def _attend_segment(
    query: Tensor, keys: Tensor, values: Tensor, segment: Segment, scaling: float | None
) -> Tensor:
    """Return [heads, t, D]: each of a segment's tokens sees the ancestors and itself, causally."""
    own = torch.arange(segment.start, segment.end)
    seen = torch.cat([segment.ancestors, own]).to(keys.device)
    mask = torch.ones(len(own), len(seen), dtype=torch.bool, device=keys.device)
    repeats = query.shape[0] // keys.shape[0]
    output: Tensor = scaled_dot_product_attention(
        query[None],  # its fast kernels want a batch axis
        keys.index_select(1, seen).repeat_interleave(repeats, dim=0)[None],
        values.index_select(1, seen).repeat_interleave(repeats, dim=0)[None],
        attn_mask=mask.tril(diagonal=len(segment.ancestors)),
        scale=scaling,
    )
    return output[0]


def cached_arguments(groups: list[Group], device: torch.device | str) -> dict[str, Any]:
    """Return what the decoder is called with, so that its attention gets the groups."""
    # A four-dimensional mask is handed on as it is; the groups stand in its place.
    return {"groups": groups, "attention_mask": torch.ones(1, 1, 1, 1, device=device).bool()}
