"""Tensors of packed token sequences and of preference pairs.

Axes, spelled here once: R rows, T tokens of a row, S sequences (a prompt and an action each),
A scored tokens (the action tokens of all sequences), P pairs, H hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from lit_qagent.data.packing import PackedRow, pack_row
from lit_qagent.data.rendering import TokenSequence

Sharing = Literal["batch", "pair", "none"]
_PAD_ID = 0  # never seen by another token and never scored, so any id of the vocabulary will do


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Sequences in rows, padded on the left, and which of their tokens to score.

    Attributes:
        token_ids: int64 [R, T].
        position_ids: int64 [R, T]; position of each token in its own sequence, 0 for padding.
        visible_until: int64 [R, T]; token k is visible to q exactly if k <= q < visible_until[k].
        is_token: bool [R, T]; False for padding.
        predictors: int64 [A]; index into the flattened R * T hidden states of the token before
            each scored one.
        targets: int64 [A]; the scored token ids.
        sequence_of: int64 [A]; the sequence that each scored token belongs to, ascending.
        num_action_tokens: int64 [S].
        is_branched: True if some row holds more than one sequence; plain causal attention is then
            wrong.
    """

    token_ids: Tensor
    position_ids: Tensor
    visible_until: Tensor
    is_token: Tensor
    predictors: Tensor
    targets: Tensor
    sequence_of: Tensor
    num_action_tokens: Tensor
    is_branched: bool

    @property
    def num_sequences(self) -> int:
        """S."""
        return len(self.num_action_tokens)

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return type(self)(**moved)


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Preference pairs; sequence 2p is the chosen action of pair p, 2p + 1 the rejected one.

    Attributes:
        tokens: S = 2P sequences.
        q_chosen: float32 [P]; ``Q_hat`` of the chosen action.
        q_rejected: float32 [P]; ``Q_hat`` of the rejected action.
        depth: int64 [P]; steps taken before the action.
    """

    tokens: TokenBatch
    q_chosen: Tensor
    q_rejected: Tensor
    depth: Tensor

    @property
    def num_pairs(self) -> int:
        """P."""
        return len(self.depth)

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device."""
        return type(self)(
            tokens=self.tokens.to(device),
            q_chosen=self.q_chosen.to(device),
            q_rejected=self.q_rejected.to(device),
            depth=self.depth.to(device),
        )


class PairTokens(NamedTuple):
    """One rendered pair: both actions after the same prompt, and their labels."""

    chosen: TokenSequence
    rejected: TokenSequence
    q_chosen: float
    q_rejected: float
    depth: int


def collate_pairs(pairs: Sequence[PairTokens], sharing: Sharing) -> PairBatch:
    """Make a batch of at least one pair.

    Args:
        pairs: The rendered pairs.
        sharing: Which sequences share a row, and so compute equal prefixes once: those of the
            whole ``batch``, those of a ``pair``, or ``none``. The numbers are the same.
    """
    both = [(pair.chosen, pair.rejected) for pair in pairs]
    everything = [sequence for two in both for sequence in two]
    rows: list[list[TokenSequence]]
    if sharing == "batch":
        rows = [everything]
    elif sharing == "pair":
        rows = [list(two) for two in both]
    else:
        rows = [[sequence] for sequence in everything]
    return PairBatch(
        tokens=collate_sequences(rows),
        q_chosen=torch.tensor([pair.q_chosen for pair in pairs], dtype=torch.float32),
        q_rejected=torch.tensor([pair.q_rejected for pair in pairs], dtype=torch.float32),
        depth=torch.tensor([pair.depth for pair in pairs]),
    )


def collate_sequences(rows: Sequence[Sequence[TokenSequence]]) -> TokenBatch:
    """Lay each group of sequences out in a row; sequences are numbered in the order given."""
    packed = [pack_row([s.prompt_ids + s.action_ids for s in row]) for row in rows]
    width = max(len(row.token_ids) for row in packed)
    starts = [width - len(row.token_ids) for row in packed]
    predictors: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    for index, (group, row) in enumerate(zip(rows, packed, strict=True)):
        offset = index * width + starts[index]
        for sequence, path in zip(group, row.paths, strict=True):
            first = len(sequence.prompt_ids)
            predictors += [offset + node for node in path[first - 1 : -1]]
            targets += sequence.action_ids
            lengths.append(len(sequence.action_ids))
    num_action_tokens = torch.tensor(lengths)
    return TokenBatch(
        **_padded(packed, starts),
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        sequence_of=torch.repeat_interleave(torch.arange(len(lengths)), num_action_tokens),
        num_action_tokens=num_action_tokens,
        is_branched=any(len(group) > 1 for group in rows),
    )


def _padded(packed: Sequence[PackedRow], starts: Sequence[int]) -> dict[str, Tensor]:
    """Return the [R, T] tensors; padding sees itself only, as attention over nothing is NaN."""
    return {
        "token_ids": torch.tensor(
            [[_PAD_ID] * s + row.token_ids for row, s in zip(packed, starts, strict=True)]
        ),
        "position_ids": torch.tensor(
            [[0] * s + row.position_ids for row, s in zip(packed, starts, strict=True)]
        ),
        "visible_until": torch.tensor(
            [
                [*range(1, s + 1), *(s + end for end in row.visible_until)]
                for row, s in zip(packed, starts, strict=True)
            ]
        ),
        "is_token": torch.tensor(
            [
                [False] * s + [True] * len(row.token_ids)
                for row, s in zip(packed, starts, strict=True)
            ]
        ),
    }
