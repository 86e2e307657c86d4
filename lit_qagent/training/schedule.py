"""The learning rate along training."""

import math
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_qagent.core.errors import ConfigError


def with_warmup(optimizer: Optimizer, trainer: pl.Trainer, fraction: float) -> Any:  # noqa: ANN401 (Lightning's union)
    """Let the learning rate rise from 0, as transformers' constant schedule with warm-up does.

    Args:
        optimizer: With the learning rate that is reached.
        trainer: Knows the number of steps.
        fraction: Share of the steps in which it rises, in [0, 1).

    Raises:
        ConfigError: It shall rise, and the number of steps is not known.
    """
    if not fraction:
        return optimizer
    streams = getattr(getattr(trainer, "datamodule", None), "streaming", False)
    if trainer.max_steps == -1 and (streams or trainer.max_epochs == -1):
        raise ConfigError(
            "model.warmup_fraction needs to know the number of steps; set trainer.max_epochs "
            "(not enough with data.streaming) or trainer.max_steps, or warmup_fraction to 0"
        )

    def factor(step: int) -> float:
        if not step:
            # The number of steps must not be asked for before training has started: that would
            # set up the loader before a resumed run could tell it where to go on.
            return 0.0
        return min(1.0, step / math.ceil(fraction * trainer.estimated_stepping_batches))

    scheduler = LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
