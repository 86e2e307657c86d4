"""A data loader that resumes in the middle of an epoch at exactly the next batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.batch import PairBatch, PairTokens


class EpochSampler(Sampler[int]):
    """A shuffled order that depends on the seed and the epoch only.

    Args:
        num_pairs: How many to order.
        seed: Same seed and epoch, same order.
    """

    def __init__(self, num_pairs: int, seed: int) -> None:
        self.num_pairs = num_pairs
        self.seed = seed
        self.start = 0
        self._epoch = 0

    def __len__(self) -> int:
        return self.num_pairs

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derive_seed("epoch", self.seed, self._epoch))
        order = torch.randperm(self.num_pairs, generator=generator).tolist()
        start, self.start = self.start, 0
        return iter(order[start:])

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it at the start of each epoch."""
        self._epoch = epoch


class ResumableLoader(DataLoader[PairTokens]):
    """Batches of pairs; Lightning saves and restores how many were given in this epoch.

    It reads in the main process (the pairs are token ids already) and has a random generator of
    its own, so that iterating leaves the global one alone.
    """

    def __init__(
        self,
        pairs: Sequence[PairTokens],
        *,
        batch_size: int,
        seed: int,
        collate_fn: Callable[[list[PairTokens]], PairBatch],
    ) -> None:
        self._order = EpochSampler(len(pairs), seed)
        self._given = 0
        self._skip = 0
        super().__init__(
            pairs,  # type: ignore[arg-type] # torch reads any sequence
            batch_size=batch_size,
            sampler=self._order,
            collate_fn=collate_fn,
            generator=torch.Generator().manual_seed(seed),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override] # a generator, to count
        skip, self._skip = self._skip, 0
        self._given = skip
        self._order.start = skip * (self.batch_size or 1)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the current epoch were given."""
        # At the end of an epoch all were given: the next one starts at its first batch.
        return {"given": self._given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip what an interrupted run was given."""
        self._skip = state["given"]
