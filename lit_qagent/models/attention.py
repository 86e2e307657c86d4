"""Attention over packed rows that computes what a branch sees, not the whole square.

A packed row is a prefix trie in depth-first order. Cut where branches part, it is a list of
segments, and the queries of a segment see its ancestors and, causally, itself. On a CPU this is
several times cheaper than one call with a dense mask, which computes every masked cell.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lit_qagent.data.batch import TokenBatch

if TYPE_CHECKING:
    from lit_qagent.models.cached_attention import Group

BRANCH_ATTENTION = "lit_qagent_branches"


class Segment(NamedTuple):
    """Tokens of one row that follow each other without a branch in between.

    Attributes:
        start: Index of the first token in its row.
        end: Index after the last one.
        visible: int64 [K]; what the last token sees: the ancestors of the first, then the segment.
        mask: bool [end - start, K]; True where a token sees another.
    """

    start: int
    end: int
    visible: Tensor
    mask: Tensor


def split_rows(batch: TokenBatch) -> list[list[Segment]]:
    """Return the segments of each row, in order; padding is in none."""
    first = batch.token_ids.shape[1] - batch.is_token.sum(dim=1)
    return [
        split_nodes(positions, start, [])
        for positions, start in zip(batch.position_ids.tolist(), first.tolist(), strict=True)
    ]


def register_branch_attention() -> str:
    """Make the attention known to transformers and return its name.

    A model that does not hand ``segments`` on to its attention gets plain SDPA with the mask.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(BRANCH_ATTENTION, branch_attention)
    # Without it transformers would drop two-dimensional masks silently.
    AttentionMaskInterface.register(BRANCH_ATTENTION, sdpa_mask)
    return BRANCH_ATTENTION


def branch_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    segments: list[list[Segment]] | None = None,
    **others: Any,  # noqa: ANN401 (what else transformers hands over)
) -> tuple[Tensor, None]:
    """Attend by groups or segments if there are any, else with the mask.

    Equal to ``softmax(scaling * query @ key.T + mask) @ value`` at every token that is no padding.

    Args:
        module: The attention layer.
        query: [R, heads, T, D].
        key: [R, key heads, T, D].
        value: [R, key heads, T, D].
        attention_mask: What transformers made of the model's mask; used without segments.
        scaling: Factor of the products; None is ``D ** -0.5``.
        segments: Result of `split_rows`.
        others: ``groups`` are histories with kept keys and values, in a single row. The rest is
            handed on where there are neither segments nor groups.

    Returns:
        [R, T, heads, D], 0 at padding, and None for the weights.
    """
    if "groups" in others:
        from lit_qagent.models.cached_attention import attend_groups

        groups: list[Group] = others["groups"]
        return attend_groups(module, query, key, value, groups, scaling), None
    if segments is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return output, None
    repeats = query.shape[1] // key.shape[1]
    rows = [
        attend_segments(query[r], key[r], value[r], row, scaling=scaling, repeats=repeats)
        for r, row in enumerate(segments)
    ]
    return torch.stack(rows).transpose(1, 2).contiguous(), None


def attend_segments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: list[Segment],
    *,
    scaling: float | None,
    repeats: int,
    offset: int = 0,
) -> Tensor:
    """Return [heads, T, D] of one row.

    Args:
        query: [heads, T, D], of the tokens from ``offset`` on.
        key: [key heads, K, D], of all tokens that segments see.
        value: [key heads, K, D].
        segments: They cover the queries in order; what comes before them is padding.
        scaling: Factor of the products; None is ``D ** -0.5``.
        repeats: Query heads for each key head.
        offset: Tokens that have a key and no query.
    """
    padding = query.new_zeros(query.shape[0], segments[0].start - offset, query.shape[2])
    outputs = [padding]
    for segment in segments:
        seen_key, seen_value = (
            part.index_select(1, segment.visible).repeat_interleave(repeats, dim=0)
            for part in (key, value)
        )
        # SDPA's fast kernels want a batch axis.
        [output] = scaled_dot_product_attention(
            query[None, :, segment.start - offset : segment.end - offset],
            seen_key[None],
            seen_value[None],
            attn_mask=segment.mask,
            scale=scaling,
        )
        outputs.append(output)
    return torch.cat(outputs, dim=1)


def split_nodes(positions: list[int], first: int, path: list[int]) -> list[Segment]:
    """Return the segments of a row's tokens from ``first`` on.

    Args:
        positions: Position of each token in its own sequence.
        first: The first token that belongs to a segment.
        path: Ancestors of that token, from the root.
    """
    segments: list[Segment] = []
    path = list(path)
    start = first
    for token in range(first, len(positions)):
        if positions[token] < len(path):
            segments.append(_segment(path, start, token))
            path = path[: positions[token]]
            start = token
        path.append(token)
    segments.append(_segment(path, start, len(positions)))
    return segments


def _segment(path: list[int], start: int, end: int) -> Segment:
    """Make the segment whose last token's path is given."""
    num_ancestors = len(path) - (end - start)
    mask = torch.ones(end - start, len(path), dtype=torch.bool).tril(diagonal=num_ancestors)
    return Segment(start=start, end=end, visible=torch.tensor(path), mask=mask)
