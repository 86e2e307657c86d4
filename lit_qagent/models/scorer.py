"""Scores candidate actions with a Q-model: the same rendering and formula as in training."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from lit_qagent.core.records import History
from lit_qagent.data.batch import collate_sequences
from lit_qagent.data.rendering import RenderingCounts, SequenceRenderer
from lit_qagent.models.q_model import QModel


class QScorer:
    """Implements `lit_qagent.agents.selection.Scorer`.

    The model works in one thread of its own, so many episodes may ask at once while the event
    loop goes on; switching the adapter is global state, so they are answered one by one.

    Args:
        q_model: What to score with.
        renderer: Chat template, tokenizer and context limit, as in training.
    """

    def __init__(self, q_model: QModel, renderer: SequenceRenderer) -> None:
        self._q_model = q_model
        self._renderer = renderer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="q-scorer")

    @property
    def counts(self) -> RenderingCounts:
        """What the context limit has cost so far."""
        return self._renderer.counts

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        """Return Q of each candidate; the history is computed once for all of them.

        Raises:
            ContextOverflow: The head and the longest candidate exceed the context limit.
        """
        if not candidates:
            return []
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._score, history, candidates)

    def _score(self, history: History, candidates: Sequence[str]) -> list[float]:
        sequences = self._renderer.render(history, candidates)
        shares = self._q_model.backbone.shares_prefixes(self._renderer.max_length)
        rows = [sequences] if shares else [[sequence] for sequence in sequences]
        batch = collate_sequences(rows).to(self._q_model.backbone.language_model.device)
        # Grad mode belongs to a thread, so it is set here and not by the caller.
        with torch.inference_mode():
            values: list[float] = self._q_model(batch).tolist()
        return values
