"""From what the backbone says about an action to its Q value."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from lit_qagent.core.errors import CheckpointError, ConfigError

Reduction = Literal["sum", "mean"]


class ActionEvidence(NamedTuple):
    """What the backbone says about each of S actions.

    Attributes:
        log_probs: [S]; sum over the action's tokens under the policy (adapter on), natural log.
        reference_log_probs: [S]; the same under the reference (adapter off), without gradient;
            None if the head does not need it.
        num_tokens: int64 [S]; tokens of the action, the end of turn included.
    """

    log_probs: Tensor
    reference_log_probs: Tensor | None
    num_tokens: Tensor


class QHead(nn.Module, ABC):
    """Gives each action a Q value.

    A head with weights of its own registers them as parameters; they are trained and saved.
    """

    kind: ClassVar[str]
    needs_reference: ClassVar[bool]

    @abstractmethod
    def forward(self, evidence: ActionEvidence) -> Tensor:
        """Return Q, float32 [S]."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""


class ImplicitQHead(QHead):
    """The paper's Q: ``beta * (log pi(a|u,tau) - log pi_ref(a|u,tau))``.

    Args:
        beta: Scale, above 0.
        reduction: ``sum`` over the action's tokens is what the paper trains; ``mean`` does not
            favour short actions.
    """

    kind = "implicit"
    needs_reference = True

    def __init__(self, beta: float = 0.1, reduction: Reduction = "sum") -> None:
        super().__init__()
        if beta <= 0:
            raise ConfigError(f"q_head beta must be above 0, got {beta}")
        if reduction not in ("sum", "mean"):
            raise ConfigError(f"q_head reduction must be sum or mean, got {reduction!r}")
        self.beta = beta
        self.reduction: Reduction = reduction

    def forward(self, evidence: ActionEvidence) -> Tensor:
        """Return Q, float32 [S]."""
        if evidence.reference_log_probs is None:
            raise ValueError("ImplicitQHead needs reference_log_probs, got None")
        q = self.beta * (evidence.log_probs - evidence.reference_log_probs)
        return q / evidence.num_tokens if self.reduction == "mean" else q

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        return {"beta": self.beta, "reduction": self.reduction}


_HEADS: dict[str, type[QHead]] = {head.kind: head for head in (ImplicitQHead,)}


def make_head(kind: str, settings: Mapping[str, Any]) -> QHead:
    """Make a head from what a checkpoint says.

    Raises:
        CheckpointError: An unknown kind, or settings that the head does not take.
    """
    if kind not in _HEADS:
        raise CheckpointError(
            f"the checkpoint has a Q-head of kind {kind!r}, this program knows "
            f"{', '.join(sorted(_HEADS))}; use the version that wrote it"
        )
    try:
        return _HEADS[kind](**settings)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(
            f"the checkpoint's settings {dict(settings)} do not fit a Q-head of kind {kind!r} "
            f"({error}); export the checkpoint again"
        ) from error
