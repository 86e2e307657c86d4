"""Preference pairs for training: split by task, rendered and tokenised once."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lit_qagent.core.errors import ConfigError, ContextOverflow, DataError
from lit_qagent.core.pairs import PairCard, PreferencePair
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.batch import PairBatch, PairTokens, Sharing, collate_pairs
from lit_qagent.data.loader import ResumableLoader
from lit_qagent.data.pairs import PairSet, pair_history, read_pairs
from lit_qagent.data.rendering import SequenceRenderer

_log = logging.getLogger(__name__)


class HasRenderer(Protocol):
    """What the data module needs of the Lightning module: the tokenizer is the model's."""

    @property
    def renderer(self) -> SequenceRenderer:
        """Chat template, tokenizer and context limit of the model."""
        ...


class PreferenceDataModule(pl.LightningDataModule):
    """Pairs of a folder, split so that no task is in two splits.

    The renderer, and with it the tokenizer and the context limit, is taken from the Lightning
    module at `setup`, so that it is named once.

    Args:
        pairs: Folder of preference pairs.
        batch_size: Pairs per batch.
        valid_fraction: Share of the tasks kept for validation, in [0, 1); at least one task
            unless 0.
        test_fraction: Share of the tasks kept for the test, in [0, 1); at least one task unless 0.
        sharing: Which sequences of a batch compute equal prefixes once. The numbers are the same;
            ``batch`` is fastest while prompts are short (its memory grows with the square of the
            tokens of a batch), ``none`` suits models that cannot share.
        seed: Decides the splits and the order of training.
    """

    def __init__(
        self,
        pairs: Path,
        batch_size: int = 8,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        sharing: Sharing = "pair",
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_fractions(valid_fraction, test_fraction)
        if batch_size < 1:
            raise ConfigError(f"data.batch_size must be >= 1, got {batch_size}")
        self._folder = Path(pairs)
        self._batch_size = batch_size
        self._fractions = {"valid": valid_fraction, "test": test_fraction}
        self._sharing: Sharing = sharing
        self._seed = seed
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

    def setup(self, stage: str | None = None) -> None:
        """Read, render and split; done once.

        Raises:
            DataError: The pairs cannot be used, or there are too few tasks to split.
        """
        if self._card is not None:
            return
        module: HasRenderer = self.trainer.lightning_module  # type: ignore[union-attr, assignment]
        found = read_pairs(self._folder)
        self._splits = self._render(found, module.renderer)
        self._card = found.card

    def train_dataloader(self) -> ResumableLoader:
        """Return shuffled batches, another order in each epoch."""
        return ResumableLoader(
            self._split("train"),
            batch_size=self._batch_size,
            seed=self._seed,
            collate_fn=self._collate(),
        )

    def val_dataloader(self) -> DataLoader[PairTokens] | list[Any]:
        """Return the batches of the validation tasks; none if ``valid_fraction`` is 0."""
        return self._in_order("valid") if self._fractions["valid"] else []

    def test_dataloader(self) -> DataLoader[PairTokens]:
        """Return the batches of the test tasks.

        Raises:
            ConfigError: ``test_fraction`` is 0.
        """
        if not self._fractions["test"]:
            raise ConfigError(
                "data.test_fraction is 0, so there is nothing to test on; train with a positive one"
            )
        return self._in_order("test")

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

    def _split(self, name: str) -> list[PairTokens]:
        self._ready()
        return self._splits[name]

    def _in_order(self, name: str) -> DataLoader[PairTokens]:
        return DataLoader(
            self._split(name),  # type: ignore[arg-type] # torch reads any sequence
            batch_size=self._batch_size,
            collate_fn=self._collate(),
        )

    def _collate(self) -> "partial[PairBatch]":
        return partial(collate_pairs, sharing=self._sharing)

    def _ready(self) -> PairCard:
        if self._card is None:
            raise ConfigError("PreferenceDataModule has no pairs yet; call setup first")
        return self._card


def render_pair(pair: PreferencePair, renderer: SequenceRenderer) -> PairTokens | None:
    """Return the token ids of a pair, or None (counted) if it is longer than the context."""
    actions = [pair.chosen[0]["content"], pair.rejected[0]["content"]]
    try:
        chosen, rejected = renderer.render(pair_history(pair), actions)
    except ContextOverflow:
        return None
    return PairTokens(
        chosen=chosen,
        rejected=rejected,
        q_chosen=pair.q_chosen,
        q_rejected=pair.q_rejected,
        depth=pair.depth,
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
