"""Which pairs go into which batch: whole trajectories together, under a budget of tokens.

Pairs of one trajectory share most of their tokens, so a batch that holds them together computes
far less. What a batch holds depends on the seed and the epoch only.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.batch import PairTokens, Sharing
from lit_qagent.data.packing import PrefixRuns, common_prefix

_log = logging.getLogger(__name__)
_MAX_PLANS = 16  # epochs after which what the batches hold repeats


class Limits(NamedTuple):
    """How much a batch may hold.

    Attributes:
        sharing: What a row of a batch holds; decides how tokens are counted.
        batch_size: Most pairs.
        max_tokens: Most tokens, padding included and shared ones counted once; None is no limit.
        longest_shared: Most tokens of a sequence that may share a row, 0 if none may; a longer one
            leaves the model's window. Its pair is in batches in which nothing is shared.
    """

    sharing: Sharing
    batch_size: int
    max_tokens: int | None = None
    longest_shared: int = sys.maxsize

    def sharing_of(self, pair: PairTokens) -> Sharing:
        """Return what the rows of a pair's batch hold."""
        return self.sharing if pair.longest <= self.longest_shared else "none"


def report_unshared(splits: Mapping[str, Sequence[PairTokens]], limits: Limits) -> None:
    """Say how many pairs are too long for the model to share their tokens, if any are."""
    counts = {
        name: sum(limits.sharing_of(pair) != limits.sharing for pair in pairs)
        for name, pairs in splits.items()
        if pairs
    }
    if any(counts.values()):
        _log.warning(
            "the model lets no sequence of more than %d tokens share a row (its window, or how it "
            "rotates positions): %s pairs are computed unshared, with the same numbers",
            limits.longest_shared,
            ", ".join(f"{n} of {len(splits[name])} {name}" for name, n in counts.items()),
        )


class BatchPlan:
    """Batches of each epoch, the same number in every epoch.

    Args:
        pairs: What to batch.
        groups: Indices of pairs that stay together where the limits allow it.
        limits: How much a batch may hold.
        seed: Same seed and epoch, same batches.
        num_epochs: How many epochs there will be, if known.
        multiple_of: The number of batches is a multiple of this: one for each process.

    Raises:
        ConfigError: A pair alone exceeds ``max_tokens``, or there are too few pairs.
    """

    def __init__(
        self,
        pairs: Sequence[PairTokens],
        groups: Sequence[Sequence[int]],
        *,
        limits: Limits,
        seed: int = 0,
        num_epochs: int | None = None,
        multiple_of: int = 1,
    ) -> None:
        self._seed = seed
        self._limits = limits
        self._sharing = [limits.sharing_of(pair) for pair in pairs]
        self._meters = {sharing: TokenMeter(pairs, sharing) for sharing in set(self._sharing)}
        self._units = [
            unit
            for group in groups
            for part in self._by_sharing(group)
            for unit in split_group(part, self._meter(part), limits)
        ]
        known = num_epochs if num_epochs and num_epochs > 0 else _MAX_PLANS
        self._num_plans = (
            min(known, _MAX_PLANS) if limits.max_tokens or self._has_big_units() else 1
        )
        longest = max(len(self._fill(epoch)) for epoch in range(self._num_plans))
        self._num_batches = -(-longest // multiple_of) * multiple_of
        if self._num_batches > len(pairs):
            raise ConfigError(
                f"{len(pairs)} training pairs are too few for {multiple_of} processes; "
                "lower trainer.devices"
            )

    def __len__(self) -> int:
        return self._num_batches

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the indices of the pairs in each batch of an epoch."""
        plan = self._fill(epoch)
        while len(plan) < self._num_batches:
            largest = max(range(len(plan)), key=lambda i: (len(plan[i]), i))
            half = -(-len(plan[largest]) // 2)
            plan[largest : largest + 1] = [plan[largest][:half], plan[largest][half:]]
        return plan

    def sharing_of(self, batch: Sequence[int]) -> Sharing:
        """Return what the rows of a batch hold."""
        return self._sharing[batch[0]]

    def _by_sharing(self, group: Sequence[int]) -> list[list[int]]:
        """Return the pairs of a group that may be in one batch."""
        parts: dict[Sharing, list[int]] = {}
        for index in group:
            parts.setdefault(self._sharing[index], []).append(index)
        return list(parts.values())

    def _meter(self, batch: Sequence[int]) -> "TokenMeter":
        return self._meters[self.sharing_of(batch)]

    def _has_big_units(self) -> bool:
        return any(len(unit) > 1 for unit in self._units)

    def in_order(self) -> list[list[int]]:
        """Return the batches of the pairs as they come, as for validation."""
        return self._pack(range(len(self._units)))

    def _fill(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch before their number is made equal."""
        # Without limits that depend on the order, every epoch has as many batches.
        seen = epoch if self._num_plans == 1 else epoch % self._num_plans
        generator = torch.Generator().manual_seed(derive_seed("epoch", self._seed, seen))
        return self._pack(torch.randperm(len(self._units), generator=generator).tolist())

    def _pack(self, order: Iterable[int]) -> list[list[int]]:
        """Fill batch after batch with units; one that shares rows and one that does not at once."""
        max_tokens = self._limits.max_tokens
        batches: list[list[int]] = []
        filling: dict[Sharing, tuple[list[int], int]] = {}  # a batch and its tokens
        for unit in (self._units[place] for place in order):
            meter = self._meter(unit)
            batch, tokens = filling.get(self.sharing_of(unit), ([], 0))
            if batch and len(batch) + len(unit) <= self._limits.batch_size:
                joined = meter.joined(tokens, batch, unit) if max_tokens else 0
                if joined <= (max_tokens or 0):
                    batch += unit
                    filling[self.sharing_of(unit)] = (batch, joined)
                    continue
            batches.append(list(unit))
            filling[self.sharing_of(unit)] = (batches[-1], meter.count(unit) if max_tokens else 0)
        return batches


class TokenMeter:
    """Counts the tokens that pairs cost in one batch."""

    def __init__(self, pairs: Sequence[PairTokens], sharing: Sharing) -> None:
        self._pairs = pairs
        self._sharing = sharing

    def count(self, indices: Sequence[int]) -> int:
        """Return the tokens of a batch of these pairs."""
        if self._sharing != "batch":
            widths = [self._width(i) for i in indices]
            return max(widths) * len(widths) * (1 if self._sharing == "pair" else 2)
        ordered = sorted(sequence for i in indices for sequence in self._sequences(i))
        saved = sum(map(common_prefix, ordered, ordered[1:]))
        return sum(map(len, ordered)) - saved

    def name(self, index: int) -> str:
        """Return the name of a pair, for messages."""
        return self._pairs[index].name

    def joined(self, tokens: int, batch: Sequence[int], unit: Sequence[int]) -> int:
        """Return at least the tokens of a batch, which has ``tokens``, and a unit together."""
        if self._sharing != "batch":
            return self.count([*batch, *unit])
        first = self._sequences(unit[0])[0]
        shared = max(common_prefix(first, self._sequences(i)[0]) for i in batch)
        return tokens + self.count(unit) - shared

    def runs(self, ordered: Sequence[int]) -> Callable[[int], Iterator[int]]:
        """Prepare to count the tokens of runs of neighbouring pairs.

        Returns:
            Called with an end, the tokens of ``ordered[start:end]`` for each start before it, the
            nearest one first.
        """
        if self._sharing == "batch":
            return PrefixRuns([self._sequences(i) for i in ordered]).ending_at
        widths = [self._width(i) for i in ordered]
        num_rows = 1 if self._sharing == "pair" else 2

        def ending_at(end: int) -> Iterator[int]:
            widest = accumulate(reversed(widths[:end]), max)
            return (num_rows * num_pairs * width for num_pairs, width in enumerate(widest, 1))

        return ending_at

    def sort(self, indices: Sequence[int]) -> list[int]:
        """Return the pairs in the order of their trie."""
        return sorted(indices, key=self._sequences)

    def _sequences(self, index: int) -> list[list[int]]:
        """Return both whole sequences of a pair, in order."""
        pair = self._pairs[index]
        return sorted([*side.prompt_ids, *side.action_ids] for side in (pair.chosen, pair.rejected))

    def _width(self, index: int) -> int:
        """Return the tokens of a pair's longest row."""
        first, last = self._sequences(index)
        if self._sharing == "pair":
            return len(first) + len(last) - common_prefix(first, last)
        return max(len(first), len(last))


def group_pairs(pairs: Sequence[PairTokens]) -> list[list[int]]:
    """Return the indices of the pairs of each trajectory, in order of appearance."""
    groups: dict[int, list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(pair.group, []).append(index)
    return list(groups.values())


def split_group(group: Sequence[int], meter: TokenMeter, limits: Limits) -> list[list[int]]:
    """Split pairs into as cheap parts as the limits allow; one part if they fit.

    The pairs are taken in the order of their trie, so that a part is a run of neighbours; the cuts
    are those that compute the fewest tokens twice.

    Raises:
        ConfigError: A pair alone exceeds ``max_tokens``.
    """
    batch_size, max_tokens = limits.batch_size, limits.max_tokens
    if len(group) <= batch_size and (max_tokens is None or meter.count(group) <= max_tokens):
        return [list(group)]
    ordered = meter.sort(group)
    ending_at = meter.runs(ordered)
    # best[j]: fewest tokens for the first j pairs, and where the last part starts.
    best: list[tuple[float, int]] = [(0, 0)]
    for end in range(1, len(ordered) + 1):
        best.append((float("inf"), 0))
        starts = range(end - 1, max(-1, end - 1 - batch_size), -1)
        for start, tokens in zip(starts, ending_at(end), strict=False):
            if max_tokens is not None and tokens > max_tokens:
                if start == end - 1:
                    raise ConfigError(
                        f"data.max_tokens is {max_tokens}, a pair alone needs {tokens} "
                        f"({meter.name(ordered[start])}); raise it to at least that, or lower "
                        "model.max_length"
                    )
                break
            # Equal costs go to fewer parts, which a cost per part of less than a token gives.
            best[end] = min(best[end], (best[start][0] + tokens + 1e-6, start))
    parts: list[list[int]] = []
    end = len(ordered)
    while end:
        start = best[end][1]
        parts.append(ordered[start:end])
        end = start
    return parts[::-1]
