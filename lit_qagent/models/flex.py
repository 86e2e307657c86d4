"""FlexAttention over packed rows, for GPUs: one kernel that skips the blocks nobody sees.

The kernel is compiled once with lengths left open. The block mask needs no compiling and never the
whole square: which blocks are seen follows from the first and the last token that sees each key.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128  # tokens; what the kernels of FlexAttention are made for
# A row or several, a block or several, with and without gradient: each is compiled once. Beyond
# the limit torch would go on uncompiled, with the whole square of scores in memory.
_MAX_VARIANTS = 32


def flex_obstacle(device: torch.device) -> str | None:
    """Return why FlexAttention cannot train on a device, or None if it can."""
    if device.type != "cuda":
        return f"FlexAttention trains on CUDA devices, not on {device.type}"
    from torch.utils._triton import has_triton

    return None if has_triton() else "Triton is not installed, or does not know this GPU"


def block_mask(visible_until: Tensor) -> "BlockMask":
    """Return the block mask of ``k <= q < visible_until[k]``.

    Equal to ``create_block_mask`` of that rule, in the time and memory of the blocks.

    Args:
        visible_until: int64 [R, T].
    """
    from torch.nn.attention.flex_attention import BlockMask

    def sees(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < visible_until[row, k])

    rows, width = visible_until.shape
    num_blocks = -(-width // BLOCK)
    # What lies behind the last token is seen by nobody.
    until = pad(visible_until, (0, num_blocks * BLOCK - width)).view(rows, num_blocks, BLOCK)
    first = torch.arange(num_blocks, device=until.device) * BLOCK
    before = first[None, :] < first[:, None]  # [query blocks, key blocks]
    seen = before & (until.amax(dim=2)[:, None, :] > first[None, :, None])
    whole = before & (until.amin(dim=2)[:, None, :] >= first[None, :, None] + BLOCK)
    own = torch.eye(num_blocks, dtype=torch.bool, device=until.device)
    return BlockMask.from_kv_blocks(
        *_listed(own | (seen & ~whole)),
        *_listed(whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(width, width),
    )


def flex_attend(
    query: Tensor, key: Tensor, value: Tensor, mask: "BlockMask", scale: float
) -> Tensor:
    """Return the attention [R, heads, T, D]; heads may share keys."""
    from torch.nn.attention.flex_attention import flex_attention

    found: Tensor = compiled(flex_attention)(
        query, key, value, block_mask=mask, scale=scale, enable_gqa=True
    )
    return found


@cache
def compiled(function: Any) -> Any:  # noqa: ANN401 (a function in, the same compiled out)
    """Compile once for every length; fixed shapes would compile anew for each batch."""
    return torch.compile(  # type: ignore[call-overload] # its types lack the limit
        function, dynamic=True, fullgraph=True, recompile_limit=_MAX_VARIANTS
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many key blocks each query block has, and their indices first: [R, 1, Q(, K)]."""
    flags = blocks[:, None].to(torch.int32)
    counts = flags.sum(dim=-1, dtype=torch.int32)
    return counts, flags.argsort(dim=-1, descending=True, stable=True).to(torch.int32)
