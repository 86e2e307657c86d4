"""Attention over several histories at once, each with keys and values kept from earlier calls.

The new tokens of all groups lie one behind the other in a single row, so nothing is padded; the
queries of a group see the group's own tokens only, kept ones included.
"""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lit_qagent.models.attention import Segment


@dataclass(kw_only=True, slots=True)
class LayerMemory:
    """Keys and values of one history: a tensor per layer, with room for what is new.

    Attributes:
        num_new: Tokens that the call adds.
        num_kept: Tokens that are there before a call.
        tensors: One per layer, [2, key heads, num_kept + num_new, D]; keys at 0, values at 1,
            tokens in the order of the history's prefix trie. A new history has none until a call
            meets its first layer.
    """

    num_new: int
    num_kept: int = 0
    tensors: list[Tensor] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Size of the tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def select(self, nodes: Tensor, num_new: int, *, consume: bool = False) -> "LayerMemory":
        """Return a copy with the given tokens only, in the given order, and room for new ones.

        Args:
            nodes: The tokens.
            num_new: Room to make.
            consume: Give this memory up on the way, layer by layer, so that there are never two.
        """
        assert self.tensors, "nothing was computed yet"
        kept = len(nodes)
        tensors = []
        for layer, old in enumerate(self.tensors):
            two, heads, _, width = old.shape
            new = old.new_empty(two, heads, kept + num_new, width)
            new[:, :, :kept] = old.index_select(2, nodes.to(old.device))
            tensors.append(new)
            if consume:
                self.tensors[layer] = old[:, :, :0].clone()  # an empty view would keep it all
        return LayerMemory(num_kept=kept, num_new=num_new, tensors=tensors)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens of a layer; returns all its keys and values, [key heads, K, D]."""
        if layer == len(self.tensors):
            heads, _, width = key.shape
            self.tensors.append(key.new_empty(2, heads, self.num_new, width))
        keys, values = self.tensors[layer]
        keys[:, self.num_kept :] = key
        values[:, self.num_kept :] = value
        return keys, values


class Siblings(NamedTuple):
    """Segments that follow each other and have the same ancestors, as candidates do.

    Attributes:
        start: Index of the first token in its history.
        end: Index after the last one.
        seen: int64 [K]; the ancestors, then all tokens of the segments.
        mask: bool [end - start, K]; each token sees the ancestors and, causally, its own segment.
    """

    start: int
    end: int
    seen: Tensor
    mask: Tensor


@dataclass(kw_only=True, slots=True)
class Group:
    """The new tokens of one history in the row, and what they see.

    Attributes:
        first: Column of the first new token.
        siblings: The new tokens, counted from those kept on.
        memory: Filled with the new tokens during the call.
    """

    first: int
    siblings: list[Siblings]
    memory: LayerMemory

    @classmethod
    def of(
        cls,
        segments: list[Segment],
        memory: LayerMemory,
        *,
        first: int = 0,
        device: torch.device | str = "cpu",
    ) -> "Group":
        """Gather segments with the same ancestors, once for all layers of a call."""
        siblings = [
            _gather(list(members), torch.device(device))
            for _, members in groupby(segments, key=_parent_of)
        ]
        return cls(first=first, siblings=siblings, memory=memory)


def _parent_of(segment: Segment) -> int:
    """Return the last token before a segment, which tells its ancestors; -1 if there is none."""
    return int(segment.ancestors[-1]) if len(segment.ancestors) else -1


def _gather(segments: list[Segment], device: torch.device) -> Siblings:
    start, end = segments[0].start, segments[-1].end
    before = segments[0].ancestors
    sizes = torch.tensor([segment.end - segment.start for segment in segments])
    owner = torch.arange(len(segments)).repeat_interleave(sizes)
    own = (owner[:, None] == owner[None, :]).tril()
    return Siblings(
        start=start,
        end=end,
        seen=torch.cat([before, torch.arange(start, end)]).to(device),
        mask=torch.cat([own.new_ones(len(own), len(before)), own], dim=1).to(device),
    )


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
        for siblings in group.siblings:
            part = query[0, :, siblings.start - before : siblings.end - before]
            outputs.append(_attend(part, keys, values, siblings, scaling))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None].contiguous()


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, siblings: Siblings, scaling: float | None
) -> Tensor:
    """Return [heads, t, D] for the t tokens of all segments.

    What they see is gathered once for all, and heads that share a key are one head of more queries.
    """
    heads_per_key = query.shape[0] // keys.shape[0]
    folded = query.reshape(keys.shape[0], -1, query.shape[-1])
    output = scaled_dot_product_attention(
        folded[None],  # its fast kernels want a batch axis
        keys.index_select(1, siblings.seen)[None],
        values.index_select(1, siblings.seen)[None],
        attn_mask=siblings.mask.repeat(heads_per_key, 1),
        scale=scaling,
    )
    return output[0].reshape(query.shape)


def cached_arguments(groups: list[Group], device: torch.device | str) -> dict[str, Any]:
    """Return what the decoder is called with, so that its attention gets the groups."""
    # A four-dimensional mask is handed on as it is; the groups stand in its place.
    return {"groups": groups, "attention_mask": torch.ones(1, 1, 1, 1, device=device).bool()}
