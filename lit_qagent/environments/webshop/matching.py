"""Fuzzy comparison of short phrases: the token set ratio."""

import re

_NOT_WORD = re.compile(r"[\W_]+")


def token_set_ratio(left: str, right: str) -> int:
    """Return how far the words of two phrases agree, 0 to 100; order and repeats do not count.

    The shared words are compared with the shared words plus each side's own; the best of the
    three comparisons counts. Equal to thefuzz 0.22's function of this name.

    Examples:
        >>> token_set_ratio("machine washable", "washable, machine wash")
        100
        >>> token_set_ratio("red", "blue")
        29
    """
    left_words = set(_NOT_WORD.sub(" ", left).lower().split())
    right_words = set(_NOT_WORD.sub(" ", right).lower().split())
    if not left_words or not right_words:
        return 0
    shared = left_words & right_words
    if shared and (left_words == shared or right_words == shared):
        return 100
    base = " ".join(sorted(shared))
    left_text = " ".join([base, *sorted(left_words - shared)]).strip()
    right_text = " ".join([base, *sorted(right_words - shared)]).strip()
    best = _ratio(left_text, right_text)
    if shared:
        best = max(best, _ratio(base, left_text), _ratio(base, right_text))
    return round(100 * best)


def _ratio(left: str, right: str) -> float:
    """Return twice the longest common subsequence over the summed lengths, in [0, 1]."""
    return 2 * _common_length(left, right) / (len(left) + len(right))


def _common_length(left: str, right: str) -> int:
    previous = [0] * (len(right) + 1)
    for letter in left:
        current = [0]
        for column, other in enumerate(right):
            if letter == other:
                current.append(previous[column] + 1)
            else:
                current.append(max(previous[column + 1], current[column]))
        previous = current
    return previous[-1]
