"""Q of candidates after histories that grow: what was computed before is not computed again.

All requests of a call lie in one row without padding. Of each, only what is new since the last
call runs through the LLM: the end of the history, and the candidates as branches after it. The
candidate that is executed is kept with its branch, so it is not computed again either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_qagent.data.packing import PackedRow, pack_row
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.attention import split_nodes
from lit_qagent.models.cached_attention import Group, LayerMemory
from lit_qagent.models.history_cache import HistoryCache
from lit_qagent.models.q_heads import ActionEvidence
from lit_qagent.models.q_model import QModel, Read

POLICY, REFERENCE = "policy", "reference"
_MAX_NEW_TOKENS = 4096  # of one call; bounds the memory of its activations


class _Part(NamedTuple):
    """One request: its trie, how much of it is kept, and the memories to extend."""

    sequences: Sequence[TokenSequence]
    row: PackedRow
    num_kept: int
    memories: dict[str, LayerMemory]

    @property
    def num_new(self) -> int:
        """Tokens that have to be computed."""
        return len(self.row.token_ids) - self.num_kept


@dataclass(frozen=True, kw_only=True)
class _Call:
    """Tensors of one call; fields as in `TokenBatch`, with a single row."""

    token_ids: Tensor
    position_ids: Tensor
    predictors: Tensor
    targets: Tensor
    sequence_of: Tensor
    num_action_tokens: Tensor
    last_tokens: Tensor


class CachedScoring:
    """Scores with one Q-model and its cache of histories; used by one thread.

    Args:
        q_model: What to score with.
        max_bytes: Most memory for keys and values, those of the call in flight included; it is
            exceeded only by the histories of one call that together need more.
    """

    def __init__(self, q_model: QModel, *, max_bytes: int) -> None:
        self._q_model = q_model
        self._passes = (POLICY, REFERENCE) if q_model.head.needs_reference else (POLICY,)
        self.cache = HistoryCache(max_bytes, self._passes)
        self.computed_tokens = 0
        self._weights_version = -1

    def score(self, asked: Sequence[Sequence[TokenSequence]]) -> list[list[float]]:
        """Return Q of every candidate of every request.

        Args:
            asked: For each request its candidates after the same prompt, at least one.
        """
        self._forget_other_weights()
        scores: list[list[float]] = []
        parts: list[_Part] = []
        for sequences in asked:
            parts.append(self._prepare(sequences))
            if sum(part.num_new for part in parts) >= _MAX_NEW_TOKENS:
                scores += self._run(parts)
                parts = []
        return scores + self._run(parts)

    def _prepare(self, sequences: Sequence[TokenSequence]) -> _Part:
        row = pack_row([s.prompt_ids + s.action_ids for s in sequences])
        num_kept, memories = self.cache.find(sequences[0].prompt_ids, len(row.token_ids))
        return _Part(sequences, row, num_kept, memories)

    def _run(self, parts: list[_Part]) -> list[list[float]]:
        if not parts:
            return []
        self.cache.make_room(sum(len(part.row.token_ids) for part in parts))
        call = _lay_out(parts, self._q_model.backbone.language_model.device)
        self.computed_tokens += call.token_ids.shape[1]
        head = self._q_model.head
        reference = None
        if REFERENCE in self._passes:
            with self._q_model.backbone.reference():
                reference = self._read(call, parts, REFERENCE, log_probs=True, hidden=False)
        read = self._read(
            call, parts, POLICY, log_probs=head.needs_log_probs, hidden=head.needs_hidden
        )
        evidence = ActionEvidence(
            log_probs=read.log_probs,
            reference_log_probs=reference.log_probs if reference else None,
            num_tokens=call.num_action_tokens,
            last_hidden=read.last_hidden,
        )
        values = head(evidence).tolist()
        for part in parts:
            self.cache.store(part.sequences, part.row, part.memories)
        counts = [len(part.sequences) for part in parts]
        return [list(chunk) for chunk in _split(values, counts)]

    def _read(
        self, call: _Call, parts: list[_Part], name: str, *, log_probs: bool, hidden: bool
    ) -> Read:
        groups = _groups(parts, name, call.token_ids.device)
        states = self._q_model.backbone.decode_groups(call.token_ids, call.position_ids, groups)
        return self._q_model.read_states(states, call, log_probs=log_probs, hidden=hidden)

    def _forget_other_weights(self) -> None:
        """Empty the cache if the weights have changed since the last call."""
        version = sum(parameter._version for parameter in self._q_model.parameters())
        if version != self._weights_version:
            self.cache.clear()
            self._weights_version = version


def _groups(parts: Sequence[_Part], name: str, device: torch.device) -> list[Group]:
    groups = []
    first = 0
    for part in parts:
        kept = part.num_kept
        segments = split_nodes(part.row.position_ids, kept, list(range(kept)))
        groups.append(Group.of(segments, part.memories[name], first=first, device=device))
        first += part.num_new
    return groups


def _lay_out(parts: Sequence[_Part], device: torch.device) -> _Call:
    """Put the new tokens of all requests one behind the other."""
    token_ids: list[int] = []
    position_ids: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    last_tokens: list[int] = []
    for part in parts:
        # Node k of the trie stands in column k + offset.
        offset = len(token_ids) - part.num_kept
        token_ids += part.row.token_ids[part.num_kept :]
        position_ids += part.row.position_ids[part.num_kept :]
        for sequence, path in zip(part.sequences, part.row.paths, strict=True):
            first = len(sequence.prompt_ids)
            predictors += [offset + node for node in path[first - 1 : -1]]
            targets += sequence.action_ids
            lengths.append(len(sequence.action_ids))
            last_tokens.append(offset + path[-1])
    counts = torch.tensor(lengths, device=device)
    return _Call(
        token_ids=torch.tensor([token_ids], device=device),
        position_ids=torch.tensor([position_ids], device=device),
        predictors=torch.tensor(predictors, device=device),
        targets=torch.tensor(targets, device=device),
        sequence_of=torch.repeat_interleave(torch.arange(len(lengths), device=device), counts),
        num_action_tokens=counts,
        last_tokens=torch.tensor(last_tokens, device=device),
    )


def _split(values: Sequence[float], counts: Sequence[int]) -> list[Sequence[float]]:
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    return [values[end - count : end] for end, count in zip(ends, counts, strict=True)]
