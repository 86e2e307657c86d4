"""Sampling among listed actions inside vLLM, token by token, as the model itself would write them.

A grammar admits every way of cutting a text into tokens, also ways the model never uses. At high
temperatures those add up: with SmolLM2 at temperature 2 one choice of five got 0.95 of the draws
where the model gives it 0.2. Here each choice has the one tokenisation that training and scoring
use, so it is drawn with the product of its tokens' probabilities among those that lead to a choice.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vllm.v1.sample.logits_processor import (
    BatchUpdate,
    LogitsProcessor,
    MoveDirectionality,
)

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig

CHOICE_IDS = "choice_ids"  # key of SamplingParams.extra_args
ChoiceIds = Sequence[Sequence[int]]


def allowed_tokens(choices: ChoiceIds, written: Sequence[int]) -> list[int]:
    """Return the tokens that continue what is written towards one of the choices, ascending.

    Args:
        choices: Token ids of each choice, with the token that ends it.
        written: The tokens so far.
    """
    length = len(written)
    prefix = list(written)
    return sorted(
        {ids[length] for ids in choices if len(ids) > length and list(ids[:length]) == prefix}
    )


class ChoiceProcessor(LogitsProcessor):  # type: ignore[misc] # vllm ships no types
    """Keeps the logits of tokens that lead to a choice; other requests are left alone."""

    def __init__(
        self, vllm_config: "VllmConfig", device: "torch.device", is_pin_memory: bool
    ) -> None:
        # Row of the batch -> choices, and the list of its tokens so far, which vLLM extends.
        self._rows: dict[int, tuple[ChoiceIds, Sequence[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """Say that even greedy sampling changes."""
        return False

    def update_state(self, batch_update: "BatchUpdate | None") -> None:
        """Follow the requests that enter, leave and move between rows of the batch."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _, written in batch_update.added:
            choices = (params.extra_args or {}).get(CHOICE_IDS)
            if choices is None:
                self._rows.pop(row, None)
            else:
                self._rows[row] = (choices, written)
        for source, target, direction in batch_update.moved:
            self._move(source, target, swap=direction == MoveDirectionality.SWAP)

    def apply(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Set the logits [rows, V] of all other tokens to minus infinity."""
        for row, (choices, written) in self._rows.items():
            allowed = allowed_tokens(choices, written)
            kept = logits[row, allowed].clone()
            logits[row] = float("-inf")
            logits[row, allowed] = kept
        return logits

    def _move(self, source: int, target: int, *, swap: bool) -> None:
        moving: Any = self._rows.pop(source, None)
        replaced: Any = self._rows.pop(target, None)
        if moving is not None:
            self._rows[target] = moving
        if swap and replaced is not None:
            self._rows[source] = replaced
