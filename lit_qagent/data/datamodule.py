"""Preference pairs for training: split by task, rendered and tokenised once."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import lightning.pytorch as pl

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.pairs import PairCard
from lit_qagent.data.batch import PairBatch, PairTokens, Sharing, collate_pairs
from lit_qagent.data.held_out import check_names, read_held_out, render_held_out
from lit_qagent.data.loader import HeldOutLoader, PairLoader
from lit_qagent.data.planning import BatchPlan, Limits, group_pairs, report_unshared
from lit_qagent.data.progress import next_batch, num_trained_batches
from lit_qagent.data.rendered import TooLong
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.sources import PairSource
from lit_qagent.data.split_pairs import PairReader, SplitPairs
from lit_qagent.data.splitting import check_fractions
from lit_qagent.data.stream_loader import StreamLoader
from lit_qagent.data.streaming import StreamSpec

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
    def longest_shared(self) -> int:
        """Most tokens of a sequence that may share a row; 0 if none may."""
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
            ``batch`` computes least, ``none`` is what models that cannot share fall back to, and
            any model for pairs that leave its window. Only where attention needs a dense mask, as
            with ``eager`` or without FlexAttention on a GPU, does memory grow with the square of
            the tokens of a row: keep ``max_tokens`` low there.
        order: What is shuffled: single ``pairs``, or ``trajectories``, whose pairs stay together
            and, with ``sharing`` batch, compute their common history once.
        max_tokens: Most tokens computed in a batch; trajectories beyond it are split where that
            costs least. None is no limit.
        too_long: What becomes of pairs that are longer than ``model.max_length`` even without any
            earlier step, which nothing cuts: ``error`` stops with their number, ``drop`` leaves
            them out, counts them and says so.
        seed: Decides the splits and the order of training.
        also: More held-out pairs by name, each what ``pairs`` takes, such as those of another
            world: ``{ood: runs/other/pairs}``. They are validated and tested on, never trained
            on, and measured by themselves, as ``val_ood/...`` and ``test_ood/...``.
        streaming: Read the training pairs anew in every epoch instead of keeping them, for sets
            larger than memory; the other splits are kept. The number of steps is not known then.
        window: For streaming: pairs that are shuffled and made into batches together.
        num_workers: For streaming: processes that read and tokenise; 0 is the training process.
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
        too_long: TooLong = "error",
        seed: int = 0,
        also: dict[str, Path | PairSource] | None = None,
        streaming: bool = False,
        window: int = 4096,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_names(also or {})
        check_fractions(valid_fraction, test_fraction)
        if batch_size < 1:
            raise ConfigError(f"data.batch_size must be >= 1, got {batch_size}")
        if max_tokens is not None and max_tokens < 2:
            raise ConfigError(f"data.max_tokens must be >= 2 or null, got {max_tokens}")
        self._reader = PairReader(
            sources=[PairSource(path=pairs)] if isinstance(pairs, Path | str) else pairs,
            fractions={"valid": valid_fraction, "test": test_fraction},
            too_long=too_long,
            seed=seed,
        )
        self._batch_size = batch_size
        self._sharing: Sharing = sharing
        self._order: Order = order
        self._max_tokens = max_tokens
        self._also = dict(also or {})
        self.streaming = streaming
        self._window = window
        self._num_workers = num_workers
        self._stream: StreamSpec | None = None
        self._card: PairCard | None = None
        self._is_reported = False
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
            "split_seed": self._reader.seed,
            "split_fractions": dict(self._reader.fractions),
            "task_ids": sorted(card.task_ids),
        }

    @property
    def num_pairs(self) -> dict[str, int]:
        """Pairs in each split, those that were dropped as too long left out.

        Of a stream it is not known yet which these are, nor how often weights repeat a pair.
        """
        card = self._ready()
        found = {name: len(pairs) for name, pairs in self._splits.items()}
        if self._stream is not None:
            found["train"] = card.num_pairs - found["valid"] - found["test"]
        return found

    @property
    def also(self) -> tuple[str, ...]:
        """Names of the further held-out sets."""
        return tuple(self._also)

    def held_out(self, stage: str) -> list[str]:
        """Return the names under which sets are measured, in the order of their loaders.

        Args:
            stage: ``val`` or ``test``.
        """
        own = [stage] if self._reader.fractions["valid" if stage == "val" else "test"] else []
        return [*own, *(f"{stage}_{name}" for name in self._also)]

    def pairs_of(self, split: str) -> list[PairTokens]:
        """Return the rendered pairs of ``train``, ``valid``, ``test`` or a set of ``also``.

        Raises:
            ConfigError: Training pairs that are streamed, so nobody has them.
        """
        self._ready()
        if split == "train" and self._stream is not None:
            raise ConfigError(
                "data.streaming keeps no training pairs, so nothing can be computed for all of "
                "them; set model.reference to live (to copy with model.lora null)"
            )
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
        limits = self._limits()
        sharing: Sharing = "none" if limits.sharing == "none" else "batch"
        limits = limits._replace(sharing=sharing, batch_size=_REFERENCE_PAIRS)
        plan = BatchPlan(pairs, group_pairs(pairs), limits=limits, num_epochs=1)
        for indices in plan.in_order():
            yield indices, _collate(pairs, plan, indices)

    def setup(self, stage: str | None = None) -> None:
        """Read, render and split; done once.

        Raises:
            DataError: The pairs cannot be used, some are too long and ``too_long`` is error, or
                there are too few tasks to split.
            OverlapError: A set of ``also`` has tasks that are trained on.
        """
        if self._card is not None:
            return
        renderer = self._module().renderer
        found = self._reader.scan(renderer) if self.streaming else self._reader.read(renderer)
        self._stream = self._stream_spec(found) if self.streaming else None
        self._splits = found.splits
        for name, path in self._also.items():
            other = read_held_out(name, path, found.trained, self._reader.seed)
            self._splits[name] = render_held_out(name, other, renderer, self._reader.too_long)
        self._card = found.card

    def train_dataloader(self) -> PairLoader | StreamLoader:
        """Return shuffled batches, another order in each epoch."""
        trainer = self._attached()
        if self._stream is not None:
            loader = StreamLoader(
                replace(self._stream, limits=self._limits()),  # known when the model is
                self._module().renderer,
                accumulate=trainer.accumulate_grad_batches,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                num_trained=partial(num_trained_batches, trainer),
            )
            # A resumed run asks for a batch before it calls set_epoch, with this number.
            progress: Any = trainer.fit_loop.epoch_progress.current
            loader.set_epoch(progress.processed)
            return loader
        pairs = self.pairs_of("train")
        return PairLoader(
            pairs,
            self._plan(pairs, num_epochs=trainer.max_epochs, multiple_of=trainer.world_size),
            accumulate=trainer.accumulate_grad_batches,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            num_trained=partial(next_batch, trainer),
        )

    def val_dataloader(self) -> HeldOutLoader | list[Any]:
        """Return the batches of the validation tasks; one loader for each set of `held_out`."""
        return self._loaders("valid")

    def test_dataloader(self) -> HeldOutLoader | list[Any]:
        """Return the batches of the test tasks; one loader for each set of `held_out`.

        Raises:
            ConfigError: ``test_fraction`` is 0, and there is no set beside.
        """
        if not self._reader.fractions["test"] and not self._also:
            raise ConfigError(
                "data.test_fraction is 0, so there is nothing to test on; train with a positive one"
            )
        return self._loaders("test")

    def _loaders(self, split: str) -> HeldOutLoader | list[Any]:
        names = [split] if self._reader.fractions[split] else []
        loaders = [self._in_order(name) for name in (*names, *self._also)]
        return loaders[0] if len(loaders) == 1 else loaders

    def _stream_spec(self, found: SplitPairs) -> StreamSpec:
        return StreamSpec(
            sources=self._reader.sources,
            sizes=found.sizes,
            tasks=found.train_tasks,
            limits=Limits(self._sharing, self._batch_size, self._max_tokens),
            window=self._window,
            keeps_trajectories=self._order == "trajectories",
            too_long=self._reader.too_long,
            seed=self._reader.seed,
            num_workers=self._num_workers,
        )

    def _in_order(self, name: str) -> HeldOutLoader:
        """Return the batches of this process; those of all measure each pair once."""
        trainer, pairs = self._attached(), self.pairs_of(name)
        return HeldOutLoader(
            pairs,
            self._plan(pairs, num_epochs=1),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def _plan(
        self, pairs: list[PairTokens], *, num_epochs: int | None = None, multiple_of: int = 1
    ) -> BatchPlan:
        by_tree = self._order == "trajectories"
        return BatchPlan(
            pairs,
            group_pairs(pairs) if by_tree else [[i] for i in range(len(pairs))],
            limits=self._limits(),
            seed=self._reader.seed,
            num_epochs=num_epochs,
            multiple_of=multiple_of,
        )

    def _module(self) -> HasRenderer:
        module: HasRenderer = self._attached().lightning_module  # type: ignore[assignment]
        return module

    def _limits(self) -> Limits:
        """Return how much a batch of the model at hand may hold.

        Says so once if less is shared than was asked for.
        """
        longest = self._module().longest_shared
        if self._sharing != "none" and not longest:
            _log.warning(
                "the model cannot keep sequences apart that share a row (recurrent layers, its own "
                "positions, or its attention), so every sequence is computed by itself: "
                "data.sharing is none instead of %s",
                self._sharing,
            )
            self._sharing = "none"
        limits = Limits(self._sharing, self._batch_size, self._max_tokens, longest)
        if not self._is_reported:
            report_unshared(self._splits, limits)
            self._is_reported = True
        return limits

    def _attached(self) -> pl.Trainer:
        if self.trainer is None:
            raise ConfigError("PreferenceDataModule has no trainer; hand it to trainer.fit")
        return self.trainer

    def _ready(self) -> PairCard:
        if self._card is None:
            raise ConfigError("PreferenceDataModule has no pairs yet; call setup first")
        return self._card


def _collate(pairs: list[PairTokens], plan: BatchPlan, indices: list[int]) -> PairBatch:
    return collate_pairs([pairs[i] for i in indices], plan.sharing_of(indices))
