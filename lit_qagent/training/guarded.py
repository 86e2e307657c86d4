"""A LightningModule whose steps stop in time, in shards too, and which saves what it trains."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_qagent.training.guards import memory_advice, refuse_bad_gradients, unsaved
from lit_qagent.training.sharding import average_gradients, clip_gradients


class GuardedModule(pl.LightningModule):
    """Checks gradients before every step, says what to lower when memory runs out.

    Weights that are not trained are those of the base model: they are neither saved nor asked for.
    """

    def trainable(self) -> dict[str, Tensor]:
        """Return the weights that are trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compute gradients; out of memory says what to lower."""
        with memory_advice():
            super().backward(loss, *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a gradient that is no number gets into the weights.

        Raises:
            TrainingFailure: There is one, here or in another process.
        """
        if self._is_sharded:
            average_gradients(self.trainable().values())
        skips_bad = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        with unsaved(self._trainer):
            refuse_bad_gradients(self.trainable(), skips_bad=skips_bad, agree=self._agree)

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Clip the gradients, also where only some are of weights in shards."""
        if not self._is_sharded:
            super().configure_gradient_clipping(*args, **kwargs)
        elif most := kwargs["gradient_clip_val"]:
            by_value = kwargs["gradient_clip_algorithm"] == "value"
            clip_gradients(self.trainable().values(), most, by_value=by_value)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Change the weights; out of memory says what to lower."""
        with memory_advice("step"):
            super().optimizer_step(*args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep trainable weights only."""
        state = checkpoint["state_dict"]
        # In shards only the first process is given the whole weights.
        checkpoint["state_dict"] = {name: state[name] for name in self.trainable() if name in state}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:  # noqa: ANN401 (torch's pair of key lists)
        """Load trainable weights; frozen ones are those of the base model and need not be there.

        Raises:
            RuntimeError: Strict, and a trainable weight is missing or a weight is unexpected.
        """
        keys = super().load_state_dict(state_dict, strict=False, assign=assign)
        missing = [name for name in keys.missing_keys if name in self.trainable()]
        keys.missing_keys[:] = missing
        if strict and (missing or keys.unexpected_keys):
            raise RuntimeError(f"weights missing: {missing}, unexpected: {keys.unexpected_keys}")
        return keys

    @property
    def _agree(self) -> Callable[[bool], bool]:
        """Tells whether a thing is so in all processes; a step without a trainer has one."""
        return bool if self._trainer is None else self._trainer.strategy.reduce_boolean_decision

    @property
    def _is_sharded(self) -> bool:
        """Whether this process has parts of the weights only."""
        return self.device_mesh is not None
