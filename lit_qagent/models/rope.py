"""Rotary positions that depend on a length: which they are, and each sequence turned by its own.

transformers takes the longest sequence of a batch, so a short one beside a long one would be
turned by other frequencies than by itself.
"""

from typing import Any

from torch import Tensor, nn


def rope_limits(config: Any) -> list[int]:  # noqa: ANN401 (any model's configuration)
    """Return the lengths in tokens up to which sequences are turned as the shortest one is."""
    limits = []
    for parameters in _rope_parameters(config):
        kind = parameters.get("rope_type") or ""
        if kind == "longrope":
            limits.append(int(parameters["original_max_position_embeddings"]))
        elif "dynamic" in kind:  # transformers scales it beyond the context only
            limits.append(int(config.max_position_embeddings))
    return limits


def turn_by_own_length(model: nn.Module) -> None:
    """Make LongRoPE choose its frequencies for each row of a batch by itself."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if getattr(module, "rope_type", None) == "longrope"
    ]
    for name, module in found:
        [limit] = rope_limits(module.config)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, RowwiseRope(module, limit))


class RowwiseRope(nn.Module):
    """A LongRoPE whose frequencies are those of each row alone.

    Args:
        rope: The model's, which looks at the largest position it is given.
        limit: Longest row in tokens that is turned by the short factors.
    """

    def __init__(self, rope: nn.Module, limit: int) -> None:
        super().__init__()
        self.rope = rope
        self.limit = limit

    def forward(
        self,
        x: Tensor,
        position_ids: Tensor,
        **others: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Tensor]:
        """Return cosine and sine, each [R, T, D], of positions [R, T]."""
        is_long = position_ids.amax(dim=1) >= self.limit
        if bool(is_long.all()) or not bool(is_long.any()):
            found: tuple[Tensor, Tensor] = self.rope(x, position_ids, **others)
            return found
        short, long = (self.rope(x[r], position_ids[r], **others) for r in (~is_long, is_long))
        cos, sin = (
            part.new_empty(*position_ids.shape, part.shape[-1]).index_put((~is_long,), part)
            for part in short
        )
        return cos.index_put((is_long,), long[0]), sin.index_put((is_long,), long[1])


def _rope_parameters(config: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return the parameters of each kind of layer; most models have one kind."""
    found = getattr(config, "rope_parameters", None) or {}
    return [found] if "rope_type" in found else [p for p in found.values() if isinstance(p, dict)]
