"""Training pairs that are read anew in every epoch: sets larger than memory.

In memory are one shuffle buffer and two windows of pairs. The order depends on the seed and the
epoch only, not on the number of workers or processes.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.pairs import PreferencePair
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.batch import PairTokens
from lit_qagent.data.planning import BatchPlan, Limits, TokenMeter, group_pairs
from lit_qagent.data.rendered import SameTokensError, TooLong, pair_name, render_pair
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.sources import PairSource, mixed

T = TypeVar("T")
SAME_TOKENS = "same_tokens"
LEFT_OVER = "left_over"
UNSHARED = "unshared"
OVER_BUDGET = "over_max_tokens"


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """What is streamed, and how.

    Attributes:
        sources: Where the pairs come from.
        sizes: Pairs of each source.
        tasks: The tasks that are trained on.
        limits: How much a batch may hold.
        window: Pairs in the shuffle buffer, and pairs that batches are made of together.
        keeps_trajectories: Neighbouring pairs of one tree are shuffled as one.
        too_long: What becomes of pairs that are longer than the context.
        seed: Same seed and epoch, same batches.
        num_workers: Processes that read and tokenise; 0 is the training process itself.
    """

    sources: Sequence[PairSource]
    sizes: Sequence[int]
    tasks: frozenset[str]
    limits: Limits
    window: int = 4096
    keeps_trajectories: bool = False
    too_long: TooLong = "error"
    seed: int = 0
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.window < self.limits.batch_size:
            raise ConfigError(
                f"data.window must be >= data.batch_size ({self.limits.batch_size}), "
                f"got {self.window}"
            )
        if self.num_workers < 0:
            raise ConfigError(f"data.num_workers must be >= 0, got {self.num_workers}")


class Window(NamedTuple):
    """The batches of some pairs.

    Attributes:
        number: Place in the epoch, from 0.
        batches: Pairs of each batch; as many batches as is a multiple of the processes.
        counts: What rendering them has cost, pairs left out by reason, and those too long to share.
        too_long: Names of pairs that are longer than the context.
    """

    number: int
    batches: list[list[PairTokens]]
    counts: Mapping[str, int]
    too_long: Sequence[str] = ()


class WindowStream(IterableDataset[Window]):
    """The windows of one epoch; each worker renders its share of them.

    Args:
        spec: What is streamed.
        renderer: Chat template, tokenizer and context limit.
        epoch: Decides the order.
        first: The first window to give; those before it are read and not rendered.
        world_size: Processes that share the batches.
    """

    def __init__(
        self,
        spec: StreamSpec,
        renderer: SequenceRenderer,
        *,
        epoch: int,
        first: int = 0,
        world_size: int = 1,
    ) -> None:
        self._spec = spec
        self._renderer = renderer
        self._epoch = epoch
        self._first = first
        self._world_size = world_size

    def __iter__(self) -> Iterator[Window]:
        worker = get_worker_info()
        place, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number, pairs in enumerate(self._windows()):
            # Windows go round the workers, which are asked in turn: their order stays.
            if number >= self._first and (number - self._first) % num_workers == place:
                yield self._render(number, pairs)

    def _windows(self) -> Iterator[list[PreferencePair]]:
        spec = self._spec
        order = random.Random(derive_seed("stream", spec.seed, self._epoch))
        pairs = (p for p in mixed(spec.sources, spec.sizes, spec.seed) if p.task_id in spec.tasks)
        units = neighbours(pairs) if spec.keeps_trajectories else ([pair] for pair in pairs)
        return windows(shuffled(units, spec.window, order), spec.window)

    def _render(self, number: int, pairs: Sequence[PreferencePair]) -> Window:
        """Render pairs and make batches of them; what is left out is counted."""
        renderer = self._renderer.fresh()
        limits = self._spec.limits
        left_out = {SAME_TOKENS: 0, OVER_BUDGET: 0, LEFT_OVER: 0}
        rendered = []
        too_long = []
        for pair in pairs:
            try:
                tokens = render_pair(pair, renderer)
            except SameTokensError:  # whatever else is wrong stops training
                left_out[SAME_TOKENS] += 1
                continue
            if tokens is None:
                too_long.append(pair_name(pair))
            elif not self._fits(tokens):
                left_out[OVER_BUDGET] += 1
            else:
                rendered.append(tokens)
        if len(rendered) < self._world_size:
            left_out[LEFT_OVER] = len(rendered)
            rendered = []
        unshared = sum(limits.sharing_of(tokens) != limits.sharing for tokens in rendered)
        counts = {**renderer.counts.to_dict(), **left_out, UNSHARED: unshared}
        batches = self._plan(number, rendered) if rendered else []
        return Window(number, batches, counts, too_long)

    def _fits(self, pair: PairTokens) -> bool:
        """Return whether a batch may hold a pair, be it alone."""
        limits = self._spec.limits
        if limits.max_tokens is None:
            return True
        return TokenMeter([pair], limits.sharing_of(pair)).count([0]) <= limits.max_tokens

    def _plan(self, number: int, pairs: list[PairTokens]) -> list[list[PairTokens]]:
        spec = self._spec
        by_tree = spec.keeps_trajectories
        plan = BatchPlan(
            pairs,
            group_pairs(pairs) if by_tree else [[i] for i in range(len(pairs))],
            limits=spec.limits,
            seed=derive_seed("window", spec.seed, self._epoch, number),
            num_epochs=1,
            multiple_of=self._world_size,
        )
        return [[pairs[i] for i in indices] for indices in plan.batches(0)]


def open_stream(stream: WindowStream, num_workers: int) -> Iterable[Window]:
    """Return the windows, made ahead by workers if there are any."""
    if not num_workers:
        return stream
    return DataLoader(stream, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is)


def neighbours(pairs: Iterable[PreferencePair]) -> Iterator[list[PreferencePair]]:
    """Give runs of pairs that come from one tree."""
    return (list(run) for _, run in groupby(pairs, key=lambda p: (p.task_id, p.tree_id)))


def shuffled(units: Iterable[list[T]], size: int, order: random.Random) -> Iterator[list[T]]:
    """Give units in another order, holding about ``size`` items.

    Examples:
        >>> sorted(x for [x] in shuffled(([i] for i in range(9)), 4, random.Random(0)))
        [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    buffer: list[list[T]] = []
    held = 0
    for unit in units:
        buffer.append(unit)
        held += len(unit)
        while held > size:
            chosen = order.randrange(len(buffer))
            buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
            given = buffer.pop()
            held -= len(given)
            yield given
    order.shuffle(buffer)
    yield from buffer


def windows(units: Iterable[list[T]], size: int) -> Iterator[list[T]]:
    """Give the items of whole units, at least ``size`` at a time.

    What is left at the end and less than half of that goes with the window before it.

    Examples:
        >>> list(windows([[1, 2], [3], [4, 5], [6]], 3))
        [[1, 2, 3], [4, 5, 6]]
        >>> list(windows([[1, 2, 3, 4], [5]], 3))
        [[1, 2, 3, 4, 5]]
    """
    held: list[T] = []
    current: list[T] = []
    for unit in units:
        current += unit
        if len(current) >= size:
            if held:
                yield held
            held, current = current, []
    if held and len(current) * 2 < size:
        yield held + current
        return
    yield from (part for part in (held, current) if part)


def _as_it_is(value: Any) -> Any:  # noqa: ANN401 (whatever a stream gives)
    return value
