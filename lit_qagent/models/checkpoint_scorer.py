"""A trained checkpoint as a `Scorer` that configurations name by ``class_path``."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_qagent.core.records import History
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.tokenizers import check_tokenizer
from lit_qagent.models.export import load_q_model, read_checkpoint
from lit_qagent.models.scorer import DEFAULT_CACHE_GB, QScorer, check_cache_gb
from lit_qagent.models.specs import BackboneSpec
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.pretrained import resolve_model


class CheckpointScorer:
    """Scores with a shareable checkpoint; its weights are loaded at the first score.

    Args:
        checkpoint: Folder that ``fit`` wrote.
        backbone: Where its base model is and how to hold it; None takes what the checkpoint says.
        cache_gb: Most memory (1e9 bytes) for keys and values of histories; see `QScorer`.

    Raises:
        CheckpointError: The folder is no checkpoint, or an incomplete one.
        ConfigError: ``cache_gb`` is below 0.
    """

    def __init__(
        self,
        checkpoint: Path,
        backbone: BackboneSpec | None = None,
        cache_gb: float = DEFAULT_CACHE_GB,
    ) -> None:
        check_cache_gb("CheckpointScorer.cache_gb", cache_gb)
        self.checkpoint = Path(checkpoint)
        self.backbone = backbone
        self.cache_gb = cache_gb
        self._card = read_checkpoint(self.checkpoint)
        self._lock = threading.Lock()
        self._scorer: QScorer | None = None

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        """Return Q of each candidate.

        Raises:
            ContextOverflow: The head and the longest candidate exceed the context limit.
            ModelError: The base model cannot be found.
            CheckpointError: Its tokenizer is not that of training.
        """
        return await self._loaded().score(history, candidates)

    def settings(self) -> dict[str, Any]:
        """Return what identifies the Q-model in manifests."""
        card = self._card
        lineage = {key: value for key, value in card.lineage.items() if key != "task_ids"}
        return {
            "backbone": card.backbone.name,
            "head": card.head,
            "head_settings": dict(card.head_settings),
            "lineage": lineage,
        }

    def _loaded(self) -> QScorer:
        with self._lock:
            if self._scorer is None:
                spec = self.backbone or self._card.backbone
                chat = load_renderer(resolve_model(spec.name), spec.revision)
                check_tokenizer(chat, self._card.lineage)
                renderer = SequenceRenderer(chat, self._card.max_length)
                q_model = load_q_model(self.checkpoint, self.backbone)
                self._scorer = QScorer(q_model, renderer, cache_gb=self.cache_gb)
            return self._scorer
