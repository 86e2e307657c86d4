"""Batches to train on, resumed in an epoch at exactly the next one, and batches to measure."""

from collections.abc import Callable, Iterator, Sequence

from lit_qagent.data.batch import PairBatch, PairTokens, collate_pairs
from lit_qagent.data.planning import BatchPlan


class PairLoader:
    """Batches of pairs in the order of a plan; reads in the main process.

    No torch DataLoader: the pairs are token ids already, and Lightning would put a sampler of its
    own between it and the plan where there are several processes.

    Args:
        pairs: The pairs.
        plan: Which of them are in which batch.
        accumulate: Batches of one optimizer step, whose pairs shall all weigh the same.
        rank: Which of the processes this is; process r takes every ``world_size``-th batch.
        world_size: How many processes there are; their gradients are averaged.
        num_trained: Tells how many batches of this epoch were trained on; what was given and not
            trained on (Ctrl-C) is given again. None counts those given.
    """

    def __init__(
        self,
        pairs: Sequence[PairTokens],
        plan: BatchPlan,
        *,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        num_trained: Callable[[], int] | None = None,
    ) -> None:
        self._pairs = pairs
        self._plan = plan
        self._accumulate = accumulate
        self._rank = rank
        self._world_size = world_size
        self._num_trained = num_trained
        self._epoch = 0
        self._given = 0
        self._skip = 0

    def __len__(self) -> int:
        return len(self._plan) // self._world_size

    def __iter__(self) -> Iterator[PairBatch]:
        self._given, self._skip = self._skip, 0
        batches = self._plan.batches(self._epoch)
        for place in range(self._given, len(self)):
            indices = batches[place * self._world_size + self._rank]
            self._given += 1
            yield collate_pairs(
                [self._pairs[i] for i in indices],
                self._plan.sharing_of(indices),
                self._mean_over(batches, place),
            )

    @property
    def sampler(self) -> "PairLoader":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it at the start of each epoch."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the current epoch need not be given again."""
        done = self._given if self._num_trained is None else self._num_trained()
        # At the end of an epoch all were given: the next one starts at its first batch.
        return {"given": done % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip what an interrupted run was trained on."""
        self._skip = state["given"]

    def _mean_over(self, batches: Sequence[Sequence[int]], place: int) -> float:
        """Return the pairs of a batch's optimizer step, per batch and process.

        Lightning divides the loss by ``accumulate`` and averages over processes.
        """
        per_step = self._accumulate * self._world_size
        first = place * self._world_size // per_step * per_step
        return sum(map(len, batches[first : first + per_step])) / per_step


class HeldOutLoader:
    """Batches in order, each measured by one of the processes.

    No torch DataLoader: Lightning would repeat batches until they divide, and count them twice.
    All processes get as many, as they compute a batch together; what is repeated is marked.

    Args:
        pairs: The pairs.
        plan: Which of them make a batch, and what its rows hold.
        rank: Which of the processes this is; process r takes every ``world_size``-th batch.
        world_size: How many processes there are.
    """

    def __init__(
        self,
        pairs: Sequence[PairTokens],
        plan: BatchPlan,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._pairs = pairs
        self._plan = plan
        self._batches = plan.in_order()
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        return -(-len(self._batches) // self._world_size)

    def __iter__(self) -> Iterator[PairBatch]:
        for place in range(self._rank, len(self) * self._world_size, self._world_size):
            is_repeat = place >= len(self._batches)
            indices = self._batches[-1 if is_repeat else place]
            sharing = self._plan.sharing_of(indices)
            batch = collate_pairs([self._pairs[i] for i in indices], sharing)
            yield batch.changed(is_repeat=is_repeat)
