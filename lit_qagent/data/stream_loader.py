"""Batches of streamed pairs; resumes in the middle of an epoch at the next batch to train on."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator

from lit_qagent.core.errors import DataError
from lit_qagent.data.batch import PairBatch, PairTokens, collate_pairs
from lit_qagent.data.rendered import too_long_error
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.streaming import (
    LEFT_OVER,
    OVER_BUDGET,
    SAME_TOKENS,
    UNSHARED,
    StreamSpec,
    WindowStream,
    open_stream,
)

_START = {"window": 0, "before": 0, "given": 0, "ended": 0}
_log = logging.getLogger(__name__)


class StreamLoader:
    """Gives each process its batches of every optimizer step, as `PairLoader` does.

    How many batches there are is known when an epoch has been read to its end. Every process reads
    all pairs, so that all agree on the batches and all pairs of a step weigh the same. A resumed
    run reads up to its place again and renders only the window that holds it.

    Args:
        spec: What is streamed.
        renderer: Chat template, tokenizer and context limit.
        accumulate: Batches of one optimizer step.
        rank: Which of the processes this is.
        world_size: How many processes there are.
        num_trained: Tells how many batches of this epoch were trained on; None counts those given.

    Raises:
        DataError: At a pair that is too long, unless such are dropped; at the end of an epoch in
            which no pair could be trained on.

    Attributes:
        counts: What rendering has cost since the start, and pairs left out by reason,
            and those too long to share.
        num_batches: Batches of the epoch for this process, once they are all given.
    """

    def __init__(
        self,
        spec: StreamSpec,
        renderer: SequenceRenderer,
        *,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        num_trained: Callable[[], int] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.num_batches: int | None = None
        self._spec = spec
        self._renderer = renderer
        self._per_step = accumulate * world_size
        self._rank = rank
        self._world_size = world_size
        self._num_trained = num_trained
        self._epoch = 0
        self._given = 0
        self._starts: list[tuple[int, int]] = []  # window, batches of all processes before it
        self._resume = dict(_START)

    def __iter__(self) -> Iterator[PairBatch]:
        start, self._resume = self._resume, dict(_START)
        self._given, self.num_batches = start["given"], None
        if start["ended"]:
            self.num_batches = self._given
            return
        skip = start["given"] * self._world_size - start["before"]
        for step in self._steps(start["window"], start["before"], skip):
            mean_over = sum(map(len, step)) / self._per_step
            for pairs in step[self._rank :: self._world_size]:
                self._given += 1
                yield collate_pairs(pairs, self._spec.limits.sharing_of(pairs[0]), mean_over)
        self.num_batches = self._given
        self._report()
        if not self._given:
            raise DataError(
                "no pair that was streamed could be trained on; raise model.max_length and "
                f"data.max_tokens, or give other pairs ({self._left_out()})"
            )

    @property
    def sampler(self) -> "StreamLoader":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it at the start of each epoch."""
        if epoch != self._epoch:
            self._epoch, self.num_batches = epoch, None

    def state_dict(self) -> dict[str, int]:
        """Return where to go on: epoch, window, and batches that were trained on.

        After an epoch that has ended comes what is left of it: nothing.
        """
        done = self._given if self._num_trained is None else self._num_trained()
        if self.num_batches is not None and done >= self.num_batches:
            return {"epoch": self._epoch, **_START, "given": done, "ended": 1}
        window, before = max(
            (start for start in self._starts if start[1] <= done * self._world_size),
            default=(0, 0),
        )
        return {
            "epoch": self._epoch,
            **_START,
            "window": window,
            "before": before,
            "given": done,
        }

    def start_of_next_epoch(self) -> dict[str, int]:
        """Return the state from which the next epoch is given whole."""
        return {"epoch": self._epoch + 1, **_START}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a run was interrupted; a batch is asked for before `set_epoch` is called."""
        self._epoch = state["epoch"]
        self._resume = {name: state[name] for name in _START}

    def _steps(self, first: int, before: int, skip: int) -> Iterator[list[list[PairTokens]]]:
        """Give the batches of each optimizer step, those of all processes."""
        step: list[list[PairTokens]] = []
        for batch in self._batches(first, before):
            if skip:
                skip -= 1
                continue
            step.append(batch)
            if len(step) == self._per_step:
                yield step
                step = []
        if step:
            yield step

    def _batches(self, first: int, before: int) -> Iterator[list[PairTokens]]:
        """Give the batches of all processes from a window on; remember where windows begin."""
        stream = WindowStream(
            self._spec,
            self._renderer,
            epoch=self._epoch,
            first=first,
            world_size=self._world_size,
        )
        self._starts = []
        for window in open_stream(stream, self._spec.num_workers):
            self.counts.update(window.counts)
            if window.too_long and self._spec.too_long == "error":
                raise too_long_error(
                    "data.pairs (in those read so far)",
                    len(window.too_long),
                    window.too_long[0],
                    self._renderer.max_length,
                )
            # Those before the last step that may still be repeated are of no use.
            self._starts = [*self._starts[-2 * self._per_step :], (window.number, before)]
            before += len(window.batches)
            yield from window.batches

    def _report(self) -> None:
        counts = self.counts
        _log.info("epoch %d: %d pairs were streamed so far", self._epoch, counts["rendered"])
        reasons = ("shortened", "too_long", SAME_TOKENS, OVER_BUDGET, LEFT_OVER)
        if any(counts[reason] for reason in reasons):
            _log.warning(
                "context limit of %d tokens, all epochs so far: %d pairs lost their oldest steps "
                "(%d steps), %s",
                self._renderer.max_length,
                counts["shortened"],
                counts["dropped_steps"],
                self._left_out(),
            )
        if counts[UNSHARED]:
            _log.warning(
                "of these %d had more than %d tokens, which the model lets no sequence have that "
                "shares a row: they were computed unshared, with the same numbers",
                counts[UNSHARED],
                self._spec.limits.longest_shared,
            )

    def _left_out(self) -> str:
        counts = self.counts
        return (
            f"{counts['too_long']} pairs were dropped as head and action alone are longer; "
            f"{counts[OVER_BUDGET]} as they alone have more than data.max_tokens, "
            f"{counts[SAME_TOKENS]} as both actions have the same tokens, "
            f"{counts[LEFT_OVER]} as they were fewer than processes"
        )
