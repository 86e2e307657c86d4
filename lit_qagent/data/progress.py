"""How much of an epoch is in the weights: where a resumed run goes on."""

import lightning.pytorch as pl

from lit_qagent.data.stream_loader import StreamLoader


def num_trained_batches(trainer: pl.Trainer) -> int:
    """Return how many batches of the epoch are in the weights, not only in hand.

    An optimizer step that was interrupted counts with none of its batches.
    """
    done: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    loader = trainer.train_dataloader
    known = loader.num_batches if isinstance(loader, StreamLoader) else None
    if done >= (known or trainer.num_training_batches):
        return done
    return done - done % int(trainer.accumulate_grad_batches)


def next_batch(trainer: pl.Trainer) -> int:
    """Return which batch of pairs in memory comes next; an epoch may end early by its limit."""
    done = num_trained_batches(trainer)
    return 0 if done >= trainer.num_training_batches else done
