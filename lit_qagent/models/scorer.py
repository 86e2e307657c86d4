"""Scores candidate actions with a Q-model: the same rendering and formula as in training."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import compress
from typing import NamedTuple

import torch

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import History
from lit_qagent.data.batch import collate_sequences
from lit_qagent.data.rendering import RenderingCounts, SequenceRenderer, TokenSequence
from lit_qagent.models.cached_scoring import CachedScoring
from lit_qagent.models.q_model import QModel

_log = logging.getLogger(__name__)
DEFAULT_CACHE_GB = 2.0


def check_cache_gb(option: str, value: float) -> None:
    """Refuse a size that is none.

    Raises:
        ConfigError: It is below 0.
    """
    if value < 0:
        raise ConfigError(
            f"{option} must be >= 0, got {value}; it is the memory for kept histories, and 0 keeps "
            "none"
        )


class _Request(NamedTuple):
    history: History
    candidates: Sequence[str]
    answer: "Future[list[float]]"


class QScorer:
    """Implements `lit_qagent.agents.selection.Scorer`.

    The model works in one thread of its own, so many episodes may ask at once while the event
    loop goes on. What waits when the thread becomes free is answered in one call; each history is
    extended from what was kept of it (see `CachedScoring`).

    Args:
        q_model: What to score with.
        renderer: Chat template, tokenizer and context limit, as in training.
        cache_gb: Most memory (1e9 bytes) for keys and values of histories, those being computed
            included; 0 keeps nothing. A history should fit for each episode in flight. It needs
            ``2 * layers * key heads * head width * bytes of the type`` a token, and twice that
            with a head that needs the reference: 0.8 GB for 2,048 tokens of phi-1_5 in bfloat16.

    Raises:
        ConfigError: ``cache_gb`` is below 0.
    """

    def __init__(
        self, q_model: QModel, renderer: SequenceRenderer, *, cache_gb: float = DEFAULT_CACHE_GB
    ) -> None:
        check_cache_gb("QScorer.cache_gb", cache_gb)
        self._q_model = q_model
        self._renderer = renderer
        self._cache_gb = cache_gb
        self._has_warned = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="q-scorer")
        self._waiting: deque[_Request] = deque()
        self._cached = CachedScoring(q_model, max_bytes=int(cache_gb * 1e9))
        self._longest_shared = q_model.backbone.longest_shared
        self._keeps = bool(self._longest_shared) and q_model.backbone.keeps_histories
        if not self._keeps:
            _log.warning(
                "every decision computes its whole history again, as %s with attention %r cannot "
                "keep any here; the scores are the same",
                q_model.backbone.spec.name,
                q_model.backbone.attention,
            )
        elif self._longest_shared < renderer.max_length:
            _log.warning(
                "histories of more than %d tokens are computed whole at every decision, as %s "
                "cannot share longer prefixes; the scores are the same",
                self._longest_shared,
                q_model.backbone.spec.name,
            )

    @property
    def counts(self) -> RenderingCounts:
        """What the context limit has cost so far."""
        return self._renderer.counts

    @property
    def num_recomputed(self) -> int:
        """Histories that were computed again, as there was no room to keep them."""
        return self._cached.cache.num_recomputed

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        """Return Q of each candidate; the history is computed once for all of them.

        Raises:
            ContextOverflow: The head and the longest candidate exceed the context limit.
        """
        if not candidates:
            return []
        request = _Request(history, candidates, Future())
        self._waiting.append(request)
        self._thread.submit(self._answer_waiting)
        return await asyncio.wrap_future(request.answer)

    def _answer_waiting(self) -> None:
        """Answer everything that waits; what an earlier call has answered is gone already."""
        requests = []
        while self._waiting:
            request = self._waiting.popleft()
            if request.answer.set_running_or_notify_cancel():
                requests.append(request)
        rendered = [(request, found) for request in requests if (found := self._render(request))]
        if not rendered:
            return
        try:
            scores = self._score([sequences for _, sequences in rendered])
        except BaseException as error:  # handed to those who asked
            for request, _ in rendered:
                request.answer.set_exception(error)
            return
        for (request, _), values in zip(rendered, scores, strict=True):
            request.answer.set_result(values)

    def _render(self, request: _Request) -> list[TokenSequence]:
        """Return the token ids of a request; an error is its answer and gives an empty list."""
        try:
            return self._renderer.render(request.history, request.candidates)
        except Exception as error:
            request.answer.set_exception(error)
            return []

    def _score(self, asked: list[list[TokenSequence]]) -> list[list[float]]:
        # Grad mode belongs to a thread, so it is set here and not by the caller.
        with torch.inference_mode():
            kept = [self._keeps and self._may_share(sequences) for sequences in asked]
            found = iter(self._cached.score(list(compress(asked, kept))))
            self._warn_of_recomputing()
            return [
                next(found) if is_kept else self._score_whole(sequences)
                for sequences, is_kept in zip(asked, kept, strict=True)
            ]

    def _warn_of_recomputing(self) -> None:
        if self._has_warned or not self.num_recomputed:
            return
        self._has_warned = True
        _log.warning(
            "a history had to be computed again, as too few fit into %g GB of keys and values (%d "
            "do now); the scores are the same, but this costs time at every step. Raise "
            "model.scorer_cache_gb (cache_gb of a CheckpointScorer) if the device has room: each "
            "episode in flight should have its history kept",
            self._cache_gb,
            len(self._cached.cache),
        )

    def _may_share(self, sequences: list[TokenSequence]) -> bool:
        longest = max(len(one.prompt_ids) + len(one.action_ids) for one in sequences)
        return longest <= self._longest_shared

    def _score_whole(self, sequences: list[TokenSequence]) -> list[float]:
        """Score with nothing kept: the attention is not ours, or the history leaves its window."""
        may_share = self._may_share(sequences)
        rows = [sequences] if may_share else [[sequence] for sequence in sequences]
        batch = collate_sequences(rows).to(self._q_model.backbone.language_model.device)
        values: list[float] = self._q_model(batch).tolist()
        return values
