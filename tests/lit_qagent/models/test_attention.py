"""Attention by branches equals one softmax over the dense mask, forward and backward."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lit_qagent.data.batch import TokenBatch, collate_sequences
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.attention import branch_attention, branch_mask, branches_of, split_rows

HEAD = list(range(10, 17))
ROWS = [
    [
        TokenSequence(HEAD, [20, 21, 22]),
        TokenSequence(HEAD, [20, 23]),
        TokenSequence([*HEAD, 20, 21, 22, 30, 31], [40, 41]),
        TokenSequence([*HEAD, 20, 21, 22, 30, 31], [42]),
        TokenSequence([50, 51], [52]),  # another root
    ],
    [TokenSequence([60], [61, 62]), TokenSequence([60], [63])],  # padded
    [TokenSequence([70, 71, 72], [73])],  # no branch
]


def batch_of_rows() -> TokenBatch:
    return collate_sequences(ROWS)


def inputs(batch: TokenBatch, key_heads: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows, width = batch.token_ids.shape
    return [
        torch.randn(rows, heads, width, 16, generator=generator).to(dtype).requires_grad_()
        for heads in (4, key_heads, key_heads)
    ]


def dense_attention(
    batch: TokenBatch, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None
) -> Tensor:
    mask = branch_mask(batch.visible_until)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=True
    )


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.05)])
def test_output_and_gradients_equal_the_dense_mask(
    key_heads: int, dtype: torch.dtype, tolerance: float
) -> None:
    batch = batch_of_rows()
    tensors = inputs(batch, key_heads, dtype)
    real = batch.is_token[:, None, :, None]
    weights = torch.randn(*tensors[0].shape, generator=torch.Generator().manual_seed(1)) * real

    dense = dense_attention(batch, *tensors, scale=0.3)
    expected = torch.autograd.grad((dense * weights).sum(), tensors)
    query, key, value = tensors
    found, _ = branch_attention(
        nn.Identity(), query, key, value, None, scaling=0.3, branches=branches_of(batch)
    )
    ours = found.transpose(1, 2)
    gradients = torch.autograd.grad((ours * weights).sum(), tensors)

    torch.testing.assert_close(ours * real, dense * real, atol=tolerance, rtol=0)
    for mine, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=3 * tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("float32", "float32")])
def test_under_autocast_it_casts_as_torchs_own_attention_does(dtypes: tuple[str, str]) -> None:
    # What a float32 model hands over: q and k are float32 by their rotation, v is a linear layer's.
    batch = batch_of_rows()
    kinds = [getattr(torch, dtypes[0])] * 2 + [getattr(torch, dtypes[1])]
    tensors = [
        t.detach().to(kind).requires_grad_()
        for t, kind in zip(inputs(batch, 2, torch.float32), kinds, strict=True)
    ]
    real = batch.is_token[:, None, :, None]
    weights = torch.randn(*tensors[0].shape, generator=torch.Generator().manual_seed(1)) * real

    with torch.autocast("cpu", dtype=torch.bfloat16):
        dense = dense_attention(batch, *tensors)
        query, key, value = tensors
        found, _ = branch_attention(
            nn.Identity(), query, key, value, None, branches=branches_of(batch)
        )
    expected = torch.autograd.grad((dense * weights).sum(), tensors)
    ours = found.transpose(1, 2)
    gradients = torch.autograd.grad((ours * weights).sum(), tensors)

    assert ours.dtype == dense.dtype == torch.bfloat16
    torch.testing.assert_close(ours * real, dense * real, atol=0.05, rtol=0)
    for mine, other, kind in zip(gradients, expected, kinds, strict=True):
        assert mine.dtype == kind
        torch.testing.assert_close(mine, other, atol=0.15, rtol=0.05)


def test_segments_by_hand() -> None:
    [row] = split_rows(collate_sequences([ROWS[1]]))

    # 60 61 62 | 63, which sees 60 only.
    assert [(s.start, s.end, s.ancestors.tolist()) for s in row] == [(0, 3, []), (3, 4, [0])]


def test_padding_is_in_no_segment() -> None:
    batch = batch_of_rows()

    for segments, real in zip(split_rows(batch), batch.is_token.tolist(), strict=True):
        covered = [False] * len(real)
        for segment in segments:
            covered[segment.start : segment.end] = [True] * (segment.end - segment.start)
        assert covered == real
