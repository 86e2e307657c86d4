"""Preference pairs for training: split by task, rendered and tokenised once."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lit_qagent.core.errors import ConfigError, ContextOverflow, DataError
from lit_qagent.core.pairs import PairCard, PreferencePair
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.batch import PairBatch, PairTokens, Sharing, collate_pairs
from lit_qagent.data.held_out import check_names, read_held_out, render_held_out
from lit_qagent.data.loader import PairLoader
from lit_qagent.data.pairs import PairSet, pair_history
from lit_qagent.data.planning import BatchPlan, Limits
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.sources import PairSource, read_sources

_REFERENCE_PAIRS = 8  # at once; without gradients even pairs that share nothing take little memory
Order = Literal["pairs", "trajectories"]
_log = logging.getLogger(__name__)


class HasRenderer(Protocol):
    """What the data module needs of the Lightning module: the tokenizer is the model's."""

    @property
    def renderer(self) -> SequenceRenderer:
        """Chat template, tokenizer and context limit of the model."""
        ...

    @property
    def shares_prefixes(self) -> bool:
        """Whether sequences may share rows."""
        ...


class PreferenceDataModule(pl.LightningDataModule):
    """Pairs of a folder, split so that no task is in two splits.

    The renderer, and with it the tokenizer and the context limit, is taken from the Lightning
    module at `setup`, so that it is named once.

    Args:
        pairs: Folder of preference pairs; or a file (JSON, JSON lines, parquet) or hub id of
            pairs in TRL's formats or the original's; or several of these with weights.
        batch_size: Most pairs in a batch.
        valid_fraction: Share of the tasks kept for validation, in [0, 1); at least one task
            unless 0.
        test_fraction: Share of the tasks kept for the test, in [0, 1); at least one task unless 0.
        sharing: Which sequences of a batch compute equal prefixes once. The numbers are the same;
            ``batch`` is fastest while prompts are short (its memory grows with the square of the
            tokens of a batch on a GPU), ``none`` is what models that cannot share fall back to.
        order: What is shuffled: single ``pairs``, or ``trajectories``, whose pairs stay together
            and, with ``sharing`` batch, compute their common history once.
        max_tokens: Most tokens computed in a batch; trajectories beyond it are split where that
            costs least. None is no limit.
        seed: Decides the splits and the order of training.
        also: More held-out pairs by name, each what ``pairs`` takes, such as those of another
            world: ``{ood: runs/other/pairs}``. They are validated and tested on, never trained
            on, and measured by themselves, as ``val_ood/...`` and ``test_ood/...``.
    """

    def __init__(  # noqa: PLR0913 (flat keys in YAML)
        self,
        pairs: Path | list[PairSource],
        batch_size: int = 8,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        sharing: Sharing = "pair",
        order: Order = "pairs",
        max_tokens: int | None = None,
        seed: int = 0,
        also: dict[str, Path] | None = None,
    ) -> None:
        super().__init__()
        check_names(also or {})
        _check_fractions(valid_fraction, test_fraction)
        if batch_size < 1:
            raise ConfigError(f"data.batch_size must be >= 1, got {batch_size}")
        self._sources = [PairSource(path=pairs)] if isinstance(pairs, Path | str) else pairs
        self._batch_size = batch_size
        self._fractions = {"valid": valid_fraction, "test": test_fraction}
        if max_tokens is not None and max_tokens < 2:
            raise ConfigError(f"data.max_tokens must be >= 2 or null, got {max_tokens}")
        self._sharing: Sharing = sharing
        self._order: Order = order
        self._max_tokens = max_tokens
        self._seed = seed
        self._also = dict(also or {})
        self._card: PairCard | None = None
        self._splits: dict[str, list[PairTokens]] = {}

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the pairs come from, as plain values; every task searched is in ``task_ids``.

        Raises:
            ConfigError: `setup` was not called yet.
        """
        card = self._ready()
        return {
            "pairs_hash": card.pairs_hash,
            "num_pairs": card.num_pairs,
            "rule": dict(card.rule),
            "environment": dict(card.environment),
            "policy": dict(card.policy),
            "search": dict(card.search),
            "prompt": dict(card.prompt),
            "seed": card.seed,
            "split_seed": self._seed,
            "task_ids": sorted(card.task_ids),
        }

    @property
    def num_pairs(self) -> dict[str, int]:
        """Pairs in each split, those that were too long left out."""
        self._ready()
        return {name: len(pairs) for name, pairs in self._splits.items()}

    @property
    def also(self) -> tuple[str, ...]:
        """Names of the further held-out sets."""
        return tuple(self._also)

    def held_out(self, stage: str) -> list[str]:
        """Return the names under which sets are measured, in the order of their loaders.

        Args:
            stage: ``val`` or ``test``.
        """
        own = [stage] if self._fractions["valid" if stage == "val" else "test"] else []
        return [*own, *(f"{stage}_{name}" for name in self._also)]

    def pairs_of(self, split: str) -> list[PairTokens]:
        """Return the rendered pairs of ``train``, ``valid``, ``test`` or a set of ``also``."""
        self._ready()
        return self._splits[split]

    def remember_reference(self, split: str, log_probs: Sequence[tuple[float, float]]) -> None:
        """Keep what the reference says about both actions of each pair of a split."""
        self._splits[split][:] = [
            pair._replace(reference=(values[0], values[1]))
            for pair, values in zip(self.pairs_of(split), log_probs, strict=True)
        ]

    def reference_batches(self, split: str) -> Iterator[tuple[list[int], PairBatch]]:
        """Give all pairs of a split, those of a trajectory together, with their indices."""
        pairs = self.pairs_of(split)
        sharing: Sharing = "batch" if self._sharing_now() != "none" else "none"
        limits = Limits(sharing, _REFERENCE_PAIRS)
        for indices in BatchPlan(pairs, group_pairs(pairs), limits=limits).in_order():
            yield indices, _collate(pairs, sharing, indices)

    def setup(self, stage: str | None = None) -> None:
        """Read, render and split; done once.

        Raises:
            DataError: The pairs cannot be used, or there are too few tasks to split.
            OverlapError: A set of ``also`` has tasks that are trained on.
        """
        if self._card is not None:
            return
        found = read_sources(self._sources, self._seed)
        self._splits = self._render(found, self._module().renderer)
        task_ids = {pair.task_id for pair in found.pairs}
        split_of = split_tasks(task_ids, seed=self._seed, **self._fractions)
        for name, path in self._also.items():
            other = read_held_out(name, path, found.pairs, split_of, self._seed)
            self._splits[name] = render_held_out(name, other, self._module().renderer, render_pair)
        self._card = found.card

    def train_dataloader(self) -> PairLoader:
        """Return shuffled batches, another order in each epoch."""
        pairs, trainer = self.pairs_of("train"), self._attached()
        return PairLoader(
            pairs,
            self._plan(pairs, num_epochs=trainer.max_epochs, multiple_of=trainer.world_size),
            sharing=self._sharing_now(),
            accumulate=trainer.accumulate_grad_batches,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            num_trained=partial(num_trained_batches, trainer),
        )

    def val_dataloader(self) -> DataLoader[list[int]] | list[Any]:
        """Return the batches of the validation tasks; one loader for each set of `held_out`."""
        return self._loaders("valid")

    def test_dataloader(self) -> DataLoader[list[int]] | list[Any]:
        """Return the batches of the test tasks; one loader for each set of `held_out`.

        Raises:
            ConfigError: ``test_fraction`` is 0, and there is no set beside.
        """
        if not self._fractions["test"] and not self._also:
            raise ConfigError(
                "data.test_fraction is 0, so there is nothing to test on; train with a positive one"
            )
        return self._loaders("test")

    def _loaders(self, split: str) -> DataLoader[list[int]] | list[Any]:
        names = [split] if self._fractions[split] else []
        loaders = [self._in_order(name) for name in (*names, *self._also)]
        return loaders[0] if len(loaders) == 1 else loaders

    def _render(self, found: PairSet, renderer: SequenceRenderer) -> dict[str, list[PairTokens]]:
        task_ids = {pair.task_id for pair in found.pairs}
        split_of = split_tasks(task_ids, seed=self._seed, **self._fractions)
        splits: dict[str, list[PairTokens]] = {"train": [], "valid": [], "test": []}
        for pair in found.pairs:
            tokens = render_pair(pair, renderer)
            if tokens is not None:
                splits[split_of[pair.task_id]].append(tokens)
        _report(splits, renderer)
        _check_splits(splits, self._fractions, renderer)
        return splits

    def _in_order(self, name: str) -> DataLoader[list[int]]:
        """Return a loader whose items are whole batches, which Lightning may hand out to ranks."""
        pairs = self.pairs_of(name)
        return DataLoader(
            self._plan(pairs).in_order(),  # type: ignore[arg-type] # torch reads any sequence
            batch_size=None,
            collate_fn=partial(_collate, pairs, self._sharing_now()),
        )

    def _plan(
        self, pairs: list[PairTokens], *, num_epochs: int | None = None, multiple_of: int = 1
    ) -> BatchPlan:
        by_tree = self._order == "trajectories"
        return BatchPlan(
            pairs,
            group_pairs(pairs) if by_tree else [[i] for i in range(len(pairs))],
            limits=Limits(self._sharing_now(), self._batch_size, self._max_tokens),
            seed=self._seed,
            num_epochs=num_epochs,
            multiple_of=multiple_of,
        )

    def _module(self) -> HasRenderer:
        module: HasRenderer = self._attached().lightning_module  # type: ignore[assignment]
        return module

    def _sharing_now(self) -> Sharing:
        """Return what is shared with the model at hand; says so once if it is less than asked."""
        if self._sharing != "none" and not self._module().shares_prefixes:
            _log.warning(
                "the model cannot keep sequences apart that share a row (sliding window, recurrent "
                "layers, or its own positions), so every sequence is computed by itself: "
                "data.sharing is none instead of %s",
                self._sharing,
            )
            self._sharing = "none"
        return self._sharing

    def _attached(self) -> pl.Trainer:
        if self.trainer is None:
            raise ConfigError("PreferenceDataModule has no trainer; hand it to trainer.fit")
        return self.trainer

    def _ready(self) -> PairCard:
        if self._card is None:
            raise ConfigError("PreferenceDataModule has no pairs yet; call setup first")
        return self._card


def group_pairs(pairs: Sequence[PairTokens]) -> list[list[int]]:
    """Return the indices of the pairs of each trajectory, in order of appearance."""
    groups: dict[int, list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(pair.group, []).append(index)
    return list(groups.values())


def num_trained_batches(trainer: pl.Trainer) -> int:
    """Return how many batches of the epoch are in the weights, not only in hand.

    An optimizer step that was interrupted counts with none of its batches.
    """
    done: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    if done >= trainer.num_training_batches:
        return done
    return done - done % int(trainer.accumulate_grad_batches)


def _collate(pairs: list[PairTokens], sharing: Sharing, indices: list[int]) -> PairBatch:
    return collate_pairs([pairs[i] for i in indices], sharing)


def render_pair(pair: PreferencePair, renderer: SequenceRenderer) -> PairTokens | None:
    """Return the token ids of a pair, or None (counted) if it is longer than the context.

    Raises:
        DataError: Both actions have the same tokens, or one has none of its own, so there is
            nothing to learn.
    """
    actions = [pair.chosen[0]["content"], pair.rejected[0]["content"]]
    try:
        chosen, rejected = renderer.render(pair_history(pair), actions)
    except ContextOverflow:
        return None
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if len(side.action_ids) <= renderer.chat.num_end_tokens:
            raise DataError(
                f"the {name} action of task {pair.task_id!r} at depth {pair.depth} has no tokens: "
                "the tokenizer drops all of its text, so its labels are masked to nothing; remove "
                "the pair, or use a model whose tokenizer knows its characters"
            )
    if chosen.action_ids == rejected.action_ids:
        raise DataError(
            f"chosen and rejected of task {pair.task_id!r} at depth {pair.depth} have the same "
            f"tokens ({actions[0][:80]!r}); remove the pair"
        )
    return PairTokens(
        chosen=chosen,
        rejected=rejected,
        q_chosen=pair.q_chosen,
        q_rejected=pair.q_rejected,
        depth=pair.depth,
        visits=(pair.visits_chosen, pair.visits_rejected),
        group=derive_seed(pair.tree_id or pair.task_id),
        name=f"task {pair.task_id} tree {pair.tree_id} depth {pair.depth}",
    )


def split_tasks(task_ids: set[str], *, seed: int, valid: float, test: float) -> dict[str, str]:
    """Assign each task to ``train``, ``valid`` or ``test`` by the rank of its hash.

    A fraction above 0 gives at least one task. The order of the ids does not matter.

    Examples:
        >>> sorted(split_tasks({"a", "b", "c", "d"}, seed=0, valid=0.25, test=0.25).values())
        ['test', 'train', 'train', 'valid']
    """
    ranked = sorted(task_ids, key=lambda task_id: (derive_seed("split", seed, task_id), task_id))
    num_valid = max(1, round(valid * len(ranked))) if valid else 0
    num_test = max(1, round(test * len(ranked))) if test else 0
    names = ["valid"] * num_valid + ["test"] * num_test
    names += ["train"] * max(0, len(ranked) - len(names))
    return dict(zip(ranked, names, strict=False))


def _report(splits: dict[str, list[PairTokens]], renderer: SequenceRenderer) -> None:
    counts = renderer.counts
    _log.info("pairs: %s", ", ".join(f"{len(p)} {name}" for name, p in splits.items()))
    if counts.shortened or counts.too_long:
        _log.warning(
            "context limit of %d tokens: %d pairs lost their oldest steps (%d steps), "
            "%d pairs were dropped as head and action alone are longer",
            renderer.max_length,
            counts.shortened,
            counts.dropped_steps,
            counts.too_long,
        )


def _check_splits(
    splits: dict[str, list[PairTokens]],
    fractions: dict[str, float],
    renderer: SequenceRenderer,
) -> None:
    """Refuse splits that training or validation would find empty."""
    wanted = ["train", *(name for name, fraction in fractions.items() if fraction)]
    empty = [name for name in wanted if not splits[name]]
    if empty:
        raise DataError(
            f"no pairs are left for {' and '.join(empty)} "
            f"({renderer.counts.too_long} pairs were longer than {renderer.max_length} tokens); "
            "collect more tasks, raise model.max_length or set the fraction of that split to 0"
        )


def _check_fractions(valid: float, test: float) -> None:
    if min(valid, test) < 0 or valid + test >= 1:
        raise ConfigError(
            "data.valid_fraction and data.test_fraction must be >= 0 and below 1 together, "
            f"got {valid} and {test}"
        )
