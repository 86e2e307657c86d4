"""Tensors of packed token sequences and of preference pairs.

Axes, spelled here once: R rows, T tokens of a row, S sequences (a prompt and an action each),
A scored tokens (the action tokens of all sequences), P pairs, H hidden size, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Never, Self, dataclass_transform

import torch
from torch import Tensor

from lit_qagent.core.errors import DataError
from lit_qagent.data.packing import PackedRow, pack_row
from lit_qagent.data.rendering import TokenSequence

Sharing = Literal["batch", "pair", "none"]
_PAD_ID = 0  # never seen by another token and never scored, so any id of the vocabulary will do


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _Bundle:
    """Named values that stay as they are, given by the names that a subclass annotates.

    It is no dataclass, mapping or named tuple: Lightning looks into those and rounds every float
    to a half precision, and labels and log-probabilities have to stay float32.
    """

    def __init__(self, **values: Any) -> None:  # noqa: ANN401
        names = type(self).__annotations__
        values = {n: getattr(type(self), n) for n in names if hasattr(type(self), n)} | values
        if values.keys() != names.keys():
            differing = ", ".join(sorted(values.keys() ^ names.keys()))
            raise TypeError(f"{type(self).__name__} has other fields than given: {differing}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set; use changed()")

    def changed(self, **values: Any) -> Self:  # noqa: ANN401
        """Return the same with other values."""
        return type(self)(**{**vars(self), **values})

    def to(self, device: torch.device | str) -> Self:
        """Return the same on a device."""
        parts = {n: value for n, value in vars(self).items() if isinstance(value, Tensor | _Bundle)}
        return self.changed(**{name: part.to(device) for name, part in parts.items()})


class TokenBatch(_Bundle):
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
        last_tokens: int64 [S]; index into the flattened hidden states of each action's last token.
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
    last_tokens: Tensor
    is_branched: bool

    @property
    def num_sequences(self) -> int:
        """S."""
        return len(self.num_action_tokens)


class PairBatch(_Bundle):
    """Preference pairs; sequence 2p is the chosen action of pair p, 2p + 1 the rejected one.

    Attributes:
        tokens: S = 2P sequences.
        q_hat: float32 [S]; ``Q_hat`` of each action.
        visits: float32 [S]; visits behind ``q_hat``.
        depth: int64 [P]; steps taken before the action.
        history: int64 [P]; pairs whose actions follow the same tokens have the same number.
        action: int64 [S]; equal actions have the same number.
        reference_log_probs: float32 [S] of each action under the reference, if known.
        names: P names for messages.
        mean_over: The losses are summed and divided by this; the number of pairs, unless an
            optimizer step takes several batches, whose pairs then all weigh the same.
        num_unshared_tokens: Tokens of all sequences if nothing were shared.
        is_repeat: Another process measures these pairs, and this one only computes with it.
    """

    tokens: TokenBatch
    q_hat: Tensor
    visits: Tensor
    depth: Tensor
    history: Tensor
    action: Tensor
    reference_log_probs: Tensor | None
    names: tuple[str, ...]
    mean_over: float
    num_unshared_tokens: int
    is_repeat: bool = False

    @property
    def num_pairs(self) -> int:
        """P."""
        return len(self.depth)


class PairTokens(NamedTuple):
    """One rendered pair: both actions after the same prompt, and their labels.

    Attributes:
        chosen: The better action.
        rejected: The worse action.
        q_chosen: ``Q_hat`` of the chosen action.
        q_rejected: ``Q_hat`` of the rejected action.
        depth: Steps taken before the action.
        visits: Visits behind the two ``Q_hat``.
        group: Number of the trajectory.
        name: For messages.
        reference: Log-probabilities of both actions under the reference, if known.
    """

    chosen: TokenSequence
    rejected: TokenSequence
    q_chosen: float
    q_rejected: float
    depth: int
    visits: tuple[int, int] = (1, 1)
    group: int = 0
    name: str = "unnamed"
    reference: tuple[float, float] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longer sequence."""
        return max(len(s.prompt_ids) + len(s.action_ids) for s in (self.chosen, self.rejected))


def collate_pairs(
    pairs: Sequence[PairTokens], sharing: Sharing, mean_over: float | None = None
) -> PairBatch:
    """Make a batch of at least one pair.

    Args:
        pairs: The rendered pairs.
        sharing: Which sequences share a row, and so compute equal prefixes once: those of the
            whole ``batch``, those of a ``pair``, or ``none``. The numbers are the same.
        mean_over: See `PairBatch`; None is the number of pairs.

    Raises:
        DataError: An action has no token that is scored; it would weigh nothing, silently.
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
    tokens = collate_sequences(rows)
    _refuse_masked(tokens.num_action_tokens, [pair.name for pair in pairs])
    known = [pair.reference for pair in pairs if pair.reference is not None]
    return PairBatch(
        tokens=tokens,
        q_hat=torch.tensor([[p.q_chosen, p.q_rejected] for p in pairs], dtype=torch.float32).view(
            -1
        ),
        visits=torch.tensor([pair.visits for pair in pairs], dtype=torch.float32).view(-1),
        depth=torch.tensor([pair.depth for pair in pairs]),
        history=torch.tensor([_number(pair.chosen.prompt_ids) for pair in pairs]),
        action=torch.tensor([_number(sequence.action_ids) for sequence in everything]),
        reference_log_probs=_flat(known) if len(known) == len(pairs) else None,
        names=tuple(pair.name for pair in pairs),
        mean_over=mean_over or len(pairs),
        num_unshared_tokens=sum(len(s.prompt_ids) + len(s.action_ids) for s in everything),
    )


def _refuse_masked(lengths: Tensor, names: Sequence[str]) -> None:
    """Refuse pairs whose chosen or rejected action has nothing to score."""
    masked = (lengths.view(-1, 2) == 0).any(dim=1).tolist()
    if any(masked):
        which = [name for name, is_masked in zip(names, masked, strict=True) if is_masked]
        raise DataError(
            f"{len(which)} of {len(names)} pairs have an action without a token to score: "
            f"{'; '.join(which[:5])}; remove them, or see what the tokenizer makes of them"
        )


def _number(token_ids: Sequence[int]) -> int:
    """Return a number below 2**53 that is the same for equal tokens, in every process."""
    return hash(tuple(token_ids)) & (2**53 - 1)  # hashes of integers are not salted


def _flat(values: Sequence[tuple[float, float]]) -> Tensor:
    """Return the values of chosen and rejected actions, alternating."""
    return torch.tensor(values, dtype=torch.float32).view(-1)


def collate_sequences(rows: Sequence[Sequence[TokenSequence]]) -> TokenBatch:
    """Lay each group of sequences out in a row; sequences are numbered in the order given."""
    packed = [pack_row([s.prompt_ids + s.action_ids for s in row]) for row in rows]
    width = max(len(row.token_ids) for row in packed)
    starts = [width - len(row.token_ids) for row in packed]
    predictors: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    ends: list[int] = []
    for index, (group, row) in enumerate(zip(rows, packed, strict=True)):
        offset = index * width + starts[index]
        for sequence, path in zip(group, row.paths, strict=True):
            before = path[len(sequence.prompt_ids) - 1 :]
            scored = sequence.scored
            predictors += [offset + before[place] for place in scored]
            targets += [sequence.action_ids[place] for place in scored]
            lengths.append(len(scored))
            ends.append(offset + path[-1])
    num_action_tokens = torch.tensor(lengths)
    return TokenBatch(
        **_padded(packed, starts),
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        sequence_of=torch.repeat_interleave(torch.arange(len(lengths)), num_action_tokens),
        num_action_tokens=num_action_tokens,
        last_tokens=torch.tensor(ends),
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
