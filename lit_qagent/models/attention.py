"""Attention over packed rows that computes what a branch sees, not the whole square.

A packed row is a prefix trie in depth-first order. Cut where branches part, it is a list of
segments: the queries of a segment see all of its ancestors and, causally, itself. On a CPU these
are two calls of the flash kernel per segment, merged by their log-sum-exp. To the ancestors, heads
that share a key are one head of more queries: nothing is repeated, and the kernel works on larger
blocks, which halves its time. The gathered ancestors are not kept for the backward pass. On a GPU
it is one call of FlexAttention with a block mask, compiled once for all lengths (`flex`). Where
that is missing, a dense mask gives the same numbers at the cost of every masked cell.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_qagent.core.errors import ModelError
from lit_qagent.data.batch import TokenBatch
from lit_qagent.models.flex import block_mask, flex_attend

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from lit_qagent.models.cached_attention import Group

BRANCH_ATTENTION = "lit_qagent_branches"
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Segment(NamedTuple):
    """Tokens of one row that follow each other without a branch in between.

    Attributes:
        start: Index of the first token in its row.
        end: Index after the last one.
        ancestors: int64 [K]; what the first token sees apart from itself.
    """

    start: int
    end: int
    ancestors: Tensor


Rows = list[list[Segment]]


def branches_of(batch: TokenBatch) -> "Rows | BlockMask":
    """Return who sees whom in the form that is fastest where the batch lies."""
    if batch.token_ids.device.type == "cpu":
        return split_rows(batch)
    return block_mask(batch.visible_until)


def branch_mask(visible_until: Tensor) -> Tensor:
    """Return which token sees which: bool [R, 1, T, T] from `TokenBatch.visible_until` [R, T]."""
    row = torch.arange(visible_until.shape[1], device=visible_until.device)
    causal = row[:, None] >= row[None, :]
    return (causal & (row[:, None] < visible_until[:, None, :]))[:, None]


def split_rows(batch: TokenBatch) -> Rows:
    """Return the segments of each row, in order; padding is in none."""
    first = batch.token_ids.shape[1] - batch.is_token.sum(dim=1)
    return [
        split_nodes(positions, start, [])
        for positions, start in zip(batch.position_ids.tolist(), first.tolist(), strict=True)
    ]


def register_branch_attention() -> str:
    """Make the attention known to transformers and return its name."""
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
    branches: "Rows | BlockMask | None" = None,
    **others: Any,  # noqa: ANN401 (what else transformers hands over)
) -> tuple[Tensor, None]:
    """Attend by groups or branches if there are any, else with the mask.

    Equal to ``softmax(scaling * query @ key.T + mask) @ value`` at every token that is no padding.

    Args:
        module: The attention layer.
        query: [R, heads, T, D].
        key: [R, key heads, T, D].
        value: [R, key heads, T, D].
        attention_mask: What transformers made of the model's mask; used without branches.
        scaling: Factor of the products; None is ``D ** -0.5``.
        branches: Result of `branches_of`.
        others: ``groups`` are histories with kept keys and values, in a single row. The rest is
            handed on where there are neither branches nor groups.

    Returns:
        [R, T, heads, D], of no meaning at padding, and None for the weights.

    Raises:
        ModelError: The layer has attention sinks or caps its scores, which is not computed here.
    """
    for name in ("s_aux", "softcap"):
        if others.get(name) is not None:
            raise ModelError(
                f"{type(module).__name__} hands {name} (sinks or soft-capping) to its attention, "
                "which backbone.attention sdpa does not compute; set it to eager"
            )
    if "groups" in others:
        from lit_qagent.models.cached_attention import attend_groups

        groups: list[Group] = others["groups"]
        return attend_groups(module, query, key, value, groups, scaling), None
    if branches is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return output, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = _cast(query, key, value)
    found: Tensor
    if isinstance(branches, list):
        found = _SegmentAttention.apply(query, key, value, branches, scale)  # type: ignore[no-untyped-call]
    else:
        found = flex_attend(query, key, value, branches, scale)
    return found.transpose(1, 2).contiguous(), None


def _cast(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors as ``scaled_dot_product_attention`` would take them.

    Autocast knows that function, and neither the kernel under it nor FlexAttention; a float32
    model hands over a float32 query and key, as they were rotated, with a bfloat16 value.
    """
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors]


class _SegmentAttention(torch.autograd.Function):
    """Flash attention of each segment to its ancestors and to itself."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rows: Rows,
        scale: float,
    ) -> Tensor:
        output = torch.zeros_like(query)
        normaliser = torch.zeros(query.shape[:3], dtype=torch.float32)
        for row, segments in enumerate(rows):
            for segment in segments:
                own = slice(segment.start, segment.end)
                part = query[row : row + 1, :, own]
                keys = _own(key, value, row, own, query)
                seen, total = _flash(part, *keys, 0.0, True, scale=scale)
                if len(segment.ancestors):
                    keys = _gathered(key, value, row, segment.ancestors)
                    before, weight = _flash(_fold(part, keys), *keys, 0.0, False, scale=scale)
                    before, weight = before.reshape(part.shape), weight.reshape(total.shape)
                    both = torch.logaddexp(total, weight)
                    seen = seen * (total - both).exp()[..., None].to(seen.dtype)
                    seen += before * (weight - both).exp()[..., None].to(seen.dtype)
                    total = both
                output[row, :, own] = seen[0]
                normaliser[row, :, own] = total[0]
        ctx.save_for_backward(query, key, value, output, normaliser)
        ctx.rows, ctx.scale = rows, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        query, key, value, output, normaliser = ctx.saved_tensors
        grads = [torch.zeros_like(part) for part in (query, key, value)]
        for row, segments in enumerate(ctx.rows):
            for segment in segments:
                own = slice(segment.start, segment.end)
                # With the normaliser of both parts each gives its share of the gradient.
                mine = [x[row : row + 1, :, own] for x in (gradient, query, output, normaliser)]
                keys = _own(key, value, row, own, query)
                of_query, *of_keys = _backward(mine, keys, causal=True, scale=ctx.scale)
                grads[0][row, :, own] += of_query[0]
                for grad, found in zip(grads[1:], of_keys, strict=True):
                    grad[row, :, own] += found.reshape(len(grad[row]), -1, *found.shape[2:]).sum(
                        dim=1
                    )
                if not len(segment.ancestors):
                    continue
                keys = _gathered(key, value, row, segment.ancestors)
                folded = [_fold(x, keys) for x in mine]
                of_query, *of_keys = _backward(folded, keys, causal=False, scale=ctx.scale)
                grads[0][row, :, own] += of_query.reshape(mine[1].shape)[0]
                for grad, found in zip(grads[1:], of_keys, strict=True):
                    grad[row].index_add_(1, segment.ancestors, found[0])
        return (*grads, None, None)


Keys = tuple[Tensor, Tensor]
"""Keys and values, [1, heads, K, D] each."""


def _backward(mine: list[Tensor], keys: Keys, *, causal: bool, scale: float) -> list[Tensor]:
    """Return the gradients of queries, keys and values from those of a part's output."""
    gradient, query, output, normaliser = mine
    found = _flash_backward(gradient, query, *keys, output, normaliser, 0.0, causal, scale=scale)
    return list(found)


def _fold(part: Tensor, keys: Keys) -> Tensor:
    """Return [1, heads, t, ...] as [1, key heads, t * heads / key heads, ...].

    Where nothing is masked the queries of all heads that share a key are alike to it.
    """
    return part.reshape(1, keys[0].shape[1], -1, *part.shape[3:])


def _own(key: Tensor, value: Tensor, row: int, own: slice, query: Tensor) -> Keys:
    """Return keys and values of a segment, one per query head: [1, heads, t, D]."""
    groups = query.shape[1] // key.shape[1]
    return (
        key[row : row + 1, :, own].repeat_interleave(groups, dim=1),
        value[row : row + 1, :, own].repeat_interleave(groups, dim=1),
    )


def _gathered(key: Tensor, value: Tensor, row: int, tokens: Tensor) -> Keys:
    """Return keys and values of some tokens: [1, key heads, K, D]."""
    return key[row : row + 1].index_select(2, tokens), value[row : row + 1].index_select(2, tokens)


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
    ancestors = path[: len(path) - (end - start)]
    return Segment(start=start, end=end, ancestors=torch.tensor(ancestors, dtype=torch.int64))
