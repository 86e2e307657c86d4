"""Exact match and F1 of an answer, equal to HotPotQA's official evaluation script."""

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED_ANSWERS = ("yes", "no", "noanswer")


def normalize_answer(answer: str) -> str:
    """Return an answer in lower case without ASCII punctuation, articles and double blanks.

    Examples:
        >>> normalize_answer("The  Beatles' (song)")
        'beatles song'
    """
    text = answer.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(answer: str, gold: str) -> float:
    """Return 1 if the two answers are equal after normalisation, else 0."""
    return float(normalize_answer(answer) == normalize_answer(gold))


def f1_score(answer: str, gold: str) -> float:
    """Return the harmonic mean of word precision and recall, in [0, 1].

    If either side is ``yes``, ``no`` or ``noanswer``, only equality counts.
    """
    given, wanted = normalize_answer(answer), normalize_answer(gold)
    if given != wanted and (given in _CLOSED_ANSWERS or wanted in _CLOSED_ANSWERS):
        return 0.0
    given_words, wanted_words = given.split(), wanted.split()
    num_shared = (Counter(given_words) & Counter(wanted_words)).total()
    if not num_shared:
        return 0.0
    precision, recall = num_shared / len(given_words), num_shared / len(wanted_words)
    return 2 * precision * recall / (precision + recall)
