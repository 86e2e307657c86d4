"""Reads pairs and renders them into splits that share no task."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import NamedTuple

from lit_qagent.core.errors import DataError
from lit_qagent.core.pairs import PairCard, PreferencePair
from lit_qagent.data.batch import PairTokens
from lit_qagent.data.held_out import TaskKey, task_key
from lit_qagent.data.rendered import TooLong, render_pairs, report_lengths
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.sources import PairSource, mixed, read_sources, scan_sources
from lit_qagent.data.splitting import split_tasks


class SplitPairs(NamedTuple):
    """What was read.

    Attributes:
        card: Of all pairs.
        splits: Rendered pairs of ``train``, ``valid`` and ``test``; of a stream, no training pairs.
        train_tasks: Ids of the tasks that are trained on.
        trained: The same tasks, each with its world.
        sizes: Of a stream: pairs of each source.
    """

    card: PairCard
    splits: dict[str, list[PairTokens]]
    train_tasks: frozenset[str]
    trained: set[TaskKey]
    sizes: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class PairReader:
    """Reads the pairs of some sources.

    Attributes:
        sources: Where the pairs come from.
        fractions: Share of the tasks of ``valid`` and ``test``, each in [0, 1).
        too_long: What becomes of pairs that are longer than the context.
        seed: Decides the splits.
    """

    sources: Sequence[PairSource]
    fractions: Mapping[str, float]
    too_long: TooLong
    seed: int

    def read(self, renderer: SequenceRenderer) -> SplitPairs:
        """Keep all pairs.

        Raises:
            DataError: They cannot be used, or a split that is wanted has none.
        """
        found = read_sources(self.sources, self.seed)
        split_of = self._split({pair.task_id for pair in found.pairs})
        splits = self._render(found.pairs, split_of, renderer)
        self._check(splits, renderer)
        train = _tasks_of("train", split_of)
        trained = {task_key(pair) for pair in found.pairs if pair.task_id in train}
        return SplitPairs(found.card, splits, train, trained)

    def scan(self, renderer: SequenceRenderer) -> SplitPairs:
        """Read all pairs twice: for the tasks to split, then for the splits that are kept.

        Raises:
            DataError: They cannot be used, or a split that is wanted has none.
        """
        found = scan_sources(self.sources, self.seed)
        split_of = self._split(found.task_ids)
        train = _tasks_of("train", split_of)
        trained: set[TaskKey] = set()

        def kept() -> Iterator[PreferencePair]:
            for pair in mixed(self.sources, found.sizes, self.seed):
                if pair.task_id not in train:
                    yield pair
                else:
                    trained.add(task_key(pair))

        splits = self._render(kept(), split_of, renderer)
        self._check({**splits, "train": train}, renderer)
        return SplitPairs(found.card, splits, train, trained, found.sizes)

    def _split(self, task_ids: set[str]) -> dict[str, str]:
        return split_tasks(task_ids, seed=self.seed, **self.fractions)

    def _render(
        self,
        pairs: Iterable[PreferencePair],
        split_of: Mapping[str, str],
        renderer: SequenceRenderer,
    ) -> dict[str, list[PairTokens]]:
        splits: dict[str, list[PairTokens]] = {"train": [], "valid": [], "test": []}
        for pair, tokens in render_pairs(
            pairs, renderer, name="data.pairs", too_long=self.too_long
        ):
            splits[split_of[pair.task_id]].append(tokens)
        report_lengths(splits, renderer)
        return splits

    def _check(self, splits: Mapping[str, Sized], renderer: SequenceRenderer) -> None:
        """Refuse splits that training or validation would find empty."""
        wanted = ["train", *(name for name, fraction in self.fractions.items() if fraction)]
        empty = [name for name in wanted if not len(splits[name])]
        if empty:
            raise DataError(
                f"no pairs are left for {' and '.join(empty)} ({renderer.counts.too_long} pairs "
                f"were longer than {renderer.max_length} tokens); collect more tasks, raise "
                "model.max_length or set the fraction of that split to 0"
            )


def _tasks_of(split: str, split_of: Mapping[str, str]) -> frozenset[str]:
    return frozenset(task for task, its in split_of.items() if its == split)
