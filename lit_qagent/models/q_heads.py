"""From what the backbone says about an action to its Q value."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import linear

from lit_qagent.core.errors import CheckpointError, ConfigError

Reduction = Literal["sum", "mean"]


class ActionEvidence(NamedTuple):
    """What the backbone says about each of S actions; None for what the head does not need.

    Attributes:
        log_probs: [S]; sum over the action's tokens under the policy (adapter on), natural log.
        reference_log_probs: [S]; the same under the reference (adapter off), without gradient.
        num_tokens: int64 [S]; tokens of the action, the end of turn included.
        last_hidden: [S, H]; last hidden state of the action's last token.
    """

    log_probs: Tensor | None
    reference_log_probs: Tensor | None
    num_tokens: Tensor
    last_hidden: Tensor | None = None


class QHead(nn.Module, ABC):
    """Gives each action a Q value.

    A head with weights of its own makes them in `attach`; they are trained and saved.
    """

    kind: ClassVar[str]
    needs_log_probs: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    needs_hidden: ClassVar[bool] = False
    beta: float = 1.0
    regression: float = 0.0

    @abstractmethod
    def forward(self, evidence: ActionEvidence) -> Tensor:
        """Return Q, float32 [S], as agents use it."""

    def trained(self, evidence: ActionEvidence) -> "dict[QHead, Tensor]":
        """Return every Q, float32 [S], that the loss is made of, by its head."""
        return {self: self(evidence)}

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""

    def attach(self, hidden_size: int) -> None:
        """Make the weights for a backbone's hidden size; does nothing the second time."""


class ImplicitQHead(QHead):
    """The paper's Q: ``beta * (log pi(a|u,tau) - log pi_ref(a|u,tau))``.

    Args:
        beta: Scale, above 0.
        reduction: ``sum`` over the action's tokens is what the paper trains; ``mean`` does not
            favour short actions.
    """

    kind = "implicit"

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
        if evidence.log_probs is None or evidence.reference_log_probs is None:
            raise ValueError("ImplicitQHead needs log_probs and reference_log_probs, got None")
        q = self.beta * (evidence.log_probs - evidence.reference_log_probs)
        return q / evidence.num_tokens if self.reduction == "mean" else q

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        return {"beta": self.beta, "reduction": self.reduction}


class ScalarQHead(QHead):
    """A linear function of the hidden state of the action's last token.

    It needs neither logits nor a reference, so it scores in about half the time. Q is 0 for every
    action before training.

    Args:
        regression: Weight of the squared error against ``Q_hat``, per visit behind it; 0 trains on
            the order of the pairs only.
    """

    kind = "scalar"
    needs_log_probs = False
    needs_reference = False
    needs_hidden = True

    def __init__(self, regression: float = 0.0) -> None:
        super().__init__()
        if regression < 0:
            raise ConfigError(f"q_head regression must be >= 0, got {regression}")
        self.regression = regression
        self.linear: nn.Linear | None = None

    def attach(self, hidden_size: int) -> None:
        """Make the weights, all 0; does nothing the second time."""
        if self.linear is None:
            self.linear = nn.Linear(hidden_size, 1)
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, evidence: ActionEvidence) -> Tensor:
        """Return Q, float32 [S]."""
        if evidence.last_hidden is None or self.linear is None:
            raise ValueError("ScalarQHead needs last_hidden and to be attached to a backbone")
        # DeepSpeed holds these weights in half precision too; Q is computed in float32 even so.
        weight, bias = self.linear.weight.float(), self.linear.bias.float()
        return linear(evidence.last_hidden.float(), weight, bias).squeeze(-1)

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        return {"regression": self.regression}


class BothQHeads(QHead):
    """Trains both heads on one backbone; their losses add up.

    Args:
        beta: Of the implicit head.
        reduction: Of the implicit head.
        regression: Of the scalar head.
        score_by: Whose Q agents use.
    """

    kind = "both"
    needs_hidden = True

    def __init__(
        self,
        beta: float = 0.1,
        reduction: Reduction = "sum",
        regression: float = 0.0,
        score_by: Literal["implicit", "scalar"] = "implicit",
    ) -> None:
        super().__init__()
        if score_by not in ("implicit", "scalar"):
            raise ConfigError(f"q_head score_by must be implicit or scalar, got {score_by!r}")
        self.implicit = ImplicitQHead(beta, reduction)
        self.scalar = ScalarQHead(regression)
        self.score_by: Literal["implicit", "scalar"] = score_by

    def attach(self, hidden_size: int) -> None:
        """Make the scalar head's weights."""
        self.scalar.attach(hidden_size)

    def forward(self, evidence: ActionEvidence) -> Tensor:
        """Return Q of the head that agents use, float32 [S]."""
        head = self.implicit if self.score_by == "implicit" else self.scalar
        q: Tensor = head(evidence)
        return q

    def trained(self, evidence: ActionEvidence) -> dict[QHead, Tensor]:
        """Return Q of both heads, the one that agents use first."""
        heads: list[QHead] = [self.implicit, self.scalar]
        if self.score_by == "scalar":
            heads.reverse()
        return {head: head(evidence) for head in heads}

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        parts = {**self.implicit.settings(), **self.scalar.settings()}
        return {**parts, "score_by": self.score_by}


_HEADS: dict[str, type[QHead]] = {
    head.kind: head for head in (ImplicitQHead, ScalarQHead, BothQHeads)
}


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
