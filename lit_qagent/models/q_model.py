"""Backbone and Q-head: token sequences in, one Q value per action out."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_qagent.core.errors import ConfigError
from lit_qagent.data.batch import TokenBatch
from lit_qagent.models.attention import split_rows
from lit_qagent.models.backbone import Backbone
from lit_qagent.models.q_heads import ActionEvidence, QHead

_CHUNK = 256  # scored tokens whose logits are in memory at once: 50 MB at 49k words


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

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return Q, float32 [S]."""
        return self.head(self.evidence(batch))  # type: ignore[no-any-return]

    def evidence(self, batch: TokenBatch) -> ActionEvidence:
        """Return what the backbone says about the actions of a batch.

        Raises:
            ConfigError: Sequences share rows, which this backbone cannot keep apart.
        """
        reference = None
        if self.head.needs_reference:
            with torch.no_grad(), self.backbone.reference():
                reference = self.action_log_probs(batch)
        return ActionEvidence(
            log_probs=self.action_log_probs(batch),
            reference_log_probs=reference,
            num_tokens=batch.num_action_tokens,
        )

    def action_log_probs(self, batch: TokenBatch) -> Tensor:
        """Return the log-probability of each action, summed over its tokens, float32 [S].

        Equal to a forward pass over each whole sequence, a log-softmax of all logits and a sum
        over the action's positions; here logits exist at those positions only, chunk by chunk.
        """
        # On a GPU one call with a dense mask is cheaper than many small ones.
        by_segments = batch.is_branched and batch.token_ids.device.type == "cpu"
        hidden = self.backbone(
            batch.token_ids,
            batch.position_ids,
            self._mask(batch),
            split_rows(batch) if by_segments else None,
        )
        return self.sum_log_probs(hidden, batch)

    def sum_log_probs(self, hidden: Tensor, batch: ScoredTokens) -> Tensor:
        """Return the log-probability of each action, float32 [S], from hidden states [R, T, H]."""
        before = hidden.flatten(0, 1).index_select(0, batch.predictors)
        chunks = zip(torch.split(before, _CHUNK), torch.split(batch.targets, _CHUNK), strict=True)
        log_probs = torch.cat([self._token_log_probs(*chunk) for chunk in chunks])
        sums = torch.zeros(len(batch.num_action_tokens), device=log_probs.device)
        return sums.index_add(0, batch.sequence_of, log_probs)

    def _token_log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return [A] log-probabilities of targets [A] after hidden states [A, H]."""
        if hidden.requires_grad:
            # The logits are computed again in the backward pass rather than kept.
            found: Tensor = checkpoint(self._score_tokens, hidden, targets, use_reentrant=False)
            return found
        return self._score_tokens(hidden, targets)

    def _score_tokens(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.backbone.logits(hidden)
        return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)

    def _mask(self, batch: TokenBatch) -> Tensor:
        if not batch.is_branched:
            return batch.is_token
        if not self.backbone.shares_prefixes:
            raise ConfigError(
                f"{self.backbone.spec.name!r} with {self.backbone.spec.attention} attention cannot "
                "share prefixes between sequences; set data.sharing to none"
            )
        return branch_mask(batch.visible_until)


def branch_mask(visible_until: Tensor) -> Tensor:
    """Return which token sees which: bool [R, 1, T, T] from `TokenBatch.visible_until` [R, T]."""
    row = torch.arange(visible_until.shape[1], device=visible_until.device)
    causal = row[:, None] >= row[None, :]
    return (causal & (row[:, None] < visible_until[:, None, :]))[:, None]
