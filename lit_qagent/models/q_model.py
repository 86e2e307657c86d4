"""Backbone and Q-head: token sequences in, one Q value per action out."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lit_qagent.core.errors import ConfigError
from lit_qagent.data.batch import TokenBatch
from lit_qagent.models.attention import branch_mask, branches_of
from lit_qagent.models.backbone import Backbone
from lit_qagent.models.q_heads import ActionEvidence, QHead
from lit_qagent.models.token_scores import token_log_probs


class Read(NamedTuple):
    """What one pass over a batch says about its S actions.

    Attributes:
        log_probs: float32 [S]; summed over the action's tokens.
        last_hidden: [S, H]; hidden state of the action's last token.
    """

    log_probs: Tensor | None
    last_hidden: Tensor | None


class ScoredTokens(Protocol):
    """The scored tokens of a batch; see `TokenBatch` for the tensors."""

    @property
    def predictors(self) -> Tensor: ...  # noqa: D102

    @property
    def targets(self) -> Tensor: ...  # noqa: D102

    @property
    def sequence_of(self) -> Tensor: ...  # noqa: D102

    @property
    def num_action_tokens(self) -> Tensor: ...  # noqa: D102

    @property
    def last_tokens(self) -> Tensor: ...  # noqa: D102


class QModel(nn.Module):
    """``Q(u, tau, a)`` of each action; works without Lightning.

    Args:
        backbone: The adapted LLM.
        head: How its evidence becomes Q.
    """

    def __init__(self, backbone: Backbone, head: QHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        head.attach(backbone.hidden_size)
        if not backbone.is_adapted and not head.needs_log_probs:
            backbone.freeze_output_layer()  # DDP stops where a trained weight gets no gradient

    @property
    def needs_base(self) -> bool:
        """Whether Q depends on the base model's weights; else all of them were trained."""
        return self.backbone.is_adapted or self.head.needs_reference

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return Q, float32 [S]."""
        return self.head(self.evidence(batch))  # type: ignore[no-any-return]

    def evidence(
        self, batch: TokenBatch, reference_log_probs: Tensor | None = None
    ) -> ActionEvidence:
        """Return what the backbone says about the actions of a batch.

        Args:
            batch: The actions.
            reference_log_probs: [S] if they are known already; else they are computed if needed.

        Raises:
            ConfigError: Sequences share rows, which this backbone cannot keep apart.
        """
        if self.head.needs_reference and reference_log_probs is None:
            reference_log_probs = self.reference_log_probs(batch)
        read = self._read(batch, log_probs=self.head.needs_log_probs, hidden=self.head.needs_hidden)
        return ActionEvidence(
            log_probs=read.log_probs,
            reference_log_probs=reference_log_probs if self.head.needs_reference else None,
            num_tokens=batch.num_action_tokens,
            last_hidden=read.last_hidden,
        )

    def reference_log_probs(self, batch: TokenBatch) -> Tensor:
        """Return the log-probability of each action before training, float32 [S], no gradient."""
        with torch.no_grad(), self.backbone.reference():
            return self.action_log_probs(batch)

    def action_log_probs(self, batch: TokenBatch) -> Tensor:
        """Return the log-probability of each action, summed over its tokens, float32 [S].

        Equal to a forward pass over each whole sequence, a log-softmax of all logits and a sum
        over the action's positions; here logits exist at those positions only, chunk by chunk.
        """
        found = self._read(batch, log_probs=True, hidden=False).log_probs
        assert found is not None
        return found

    def _read(self, batch: TokenBatch, *, log_probs: bool, hidden: bool) -> Read:
        """Run the backbone once and take what is asked for."""
        branches = branches_of(batch) if self._by_branches(batch) else None
        states = self.backbone(
            batch.token_ids,
            batch.position_ids,
            self._mask(batch) if branches is None else None,
            branches,
        )
        return self.read_states(states, batch, log_probs=log_probs, hidden=hidden)

    def read_states(
        self, hidden_states: Tensor, batch: ScoredTokens, *, log_probs: bool, hidden: bool
    ) -> Read:
        """Take from hidden states [R, T, H] what is asked for."""
        states = hidden_states.flatten(0, 1)
        sums = None
        if log_probs:
            before = states.index_select(0, batch.predictors)
            scores = token_log_probs(self.backbone.output_layer, before, batch.targets)
            sums = scores.new_zeros(len(batch.num_action_tokens))  # whatever type is the default
            sums = sums.index_add(0, batch.sequence_of, scores)
        return Read(sums, states.index_select(0, batch.last_tokens) if hidden else None)

    def _by_branches(self, batch: TokenBatch) -> bool:
        if not batch.is_branched:
            return False
        length = int(batch.position_ids.max()) + 1
        if not self.backbone.shares_prefixes(length):
            raise ConfigError(
                f"{self.backbone.spec.name!r} with {self.backbone.spec.attention} attention cannot "
                f"share prefixes between sequences of {length} tokens (at most "
                f"{self.backbone.longest_shared}); set data.sharing to none"
            )
        return self.backbone.way == "branches"

    def _mask(self, batch: TokenBatch) -> Tensor:
        return branch_mask(batch.visible_until) if batch.is_branched else batch.is_token
