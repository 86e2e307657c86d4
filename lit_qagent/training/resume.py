"""A checkpoint never counts batches whose gradients are not in its weights."""

from typing import Any

import lightning.pytorch as pl

from lit_qagent.data.progress import num_trained_batches
from lit_qagent.data.stream_loader import StreamLoader


def rewind_to_last_step(checkpoint: dict[str, Any], trainer: pl.Trainer) -> None:
    """Let the saved progress end with the last whole optimizer step.

    An exception while gradients accumulate loses those of the batches before it, so a resumed run
    trains on them again; the loader tells its own place by the same count.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop")
    done: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    lost = done - num_trained_batches(trainer)
    if not loops:
        return
    saved = loops["epoch_loop.batch_progress"]
    loader = trainer.train_dataloader
    if isinstance(loader, StreamLoader) and done == loader.num_batches:
        if saved["total"]["completed"] < saved["total"]["processed"]:
            # Lightning adds the last batch itself and goes on with the next epoch; it would know
            # that this one has ended by its number of batches, which a stream has not.
            saved["current"]["completed"] = -1
            loops["state_dict"]["combined_loader"] = [loader.start_of_next_epoch()]
        return
    if isinstance(loader, StreamLoader) and done >= trainer.num_training_batches:
        # limit_train_batches ended this epoch, which Lightning sees itself; the stream does not.
        loops["state_dict"]["combined_loader"] = [loader.start_of_next_epoch()]
        return
    if not lost:
        return
    trained = {part: saved[part]["completed"] - lost for part in ("current", "total")}
    for part, count in trained.items():
        saved[part].update(dict.fromkeys(("ready", "started", "processed", "completed"), count))
