"""BM25 ranking of short English texts, shared by the worlds that search."""

import logging
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

_WORD = re.compile(r"\w+")
# The English stop words that Lucene leaves out.
STOP_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "but", "by"),
        *("for", "if", "in", "into", "is", "it", "no", "not", "of"),
        *("on", "or", "such", "that", "the", "their", "then", "there", "these"),
        *("they", "this", "to", "was", "will", "with"),
    )
)


def tokenize(text: str) -> list[str]:
    """Return the words of a text, lower case, without stop words, plurals folded.

    Examples:
        >>> tokenize("The ponies of two Glasses")
        ['pony', 'two', 'glasse']
    """
    words = _WORD.findall(text.lower())
    return [_singular(word) for word in words if word not in STOP_WORDS]


def _singular(word: str) -> str:
    """Fold a plural as Harman's S-stemmer does (JASIS 42(1), 1991)."""
    if len(word) <= 3 or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") else word


class TextIndex:
    """Ranks documents by BM25 in Lucene's form; built at the first query.

    Args:
        documents: The texts; a result is a position in this sequence.
        k1: Saturation of term counts.
        b: Weight of document length.
    """

    def __init__(self, documents: Sequence[str], *, k1: float = 0.9, b: float = 0.4) -> None:
        self._documents = documents
        self._k1 = k1
        self._b = b

    def rank(self, query: str, limit: int) -> list[int]:
        """Return the positions of at most ``limit`` documents that share a word, best first.

        Equal scores keep the documents' order, so a ranking is the same on every machine.
        """
        words = tokenize(query)
        if not words or self._bm25 is None:
            return []
        import numpy as np

        scores = np.asarray(self._bm25.get_scores(words))
        best = np.argsort(-scores, kind="stable")[:limit]
        return [int(position) for position in best if scores[position] > 0]

    @cached_property
    def _bm25(self) -> Any:  # noqa: ANN401 (bm25s ships no types)
        tokens = [tokenize(document) for document in self._documents]
        if not any(tokens):
            return None
        import bm25s  # takes seconds to import, so only worlds that search pay for it

        # It sets its own logger to DEBUG, which would fill every log.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        index = bm25s.BM25(k1=self._k1, b=self._b, method="lucene", backend="numpy")
        index.index(tokens, show_progress=False)
        return index
