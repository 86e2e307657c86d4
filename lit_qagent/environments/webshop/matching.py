"""Fuzzy comparison of short phrases: the token set ratio."""

import re

# As in thefuzz: Latin-1 letters beyond ASCII are dropped before words are split, others are kept.
_LATIN_1 = dict.fromkeys(range(128, 256))
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
    left_words, right_words = _words(left), _words(right)
    if not left_words or not right_words:
        return 0
    shared = left_words & right_words
    left_own = " ".join(sorted(left_words - shared))
    right_own = " ".join(sorted(right_words - shared))
    if shared and not (left_own and right_own):
        return 100
    base = len(" ".join(shared))
    gap = 1 if shared else 0
    left_length, right_length = base + gap + len(left_own), base + gap + len(right_own)
    different = len(left_own) + len(right_own) - 2 * _common_length(left_own, right_own)
    best = _ratio(different, left_length + right_length)
    if shared:
        best = max(
            best,
            _ratio(gap + len(left_own), base + left_length),
            _ratio(gap + len(right_own), base + right_length),
        )
    return round(best)


def _words(text: str) -> set[str]:
    if not text.isascii():
        # Letter by letter, as thefuzz does: no letter becomes two, and no sigma is a final one.
        text = "".join(letter.lower()[0] for letter in text.translate(_LATIN_1))
    return set(_NOT_WORD.sub(" ", text.lower()).split())


def _ratio(different: int, total: int) -> float:
    """Return the share of letters that need no change, in percent; written so as to round alike."""
    return 100.0 - 100.0 * different / total


def _common_length(left: str, right: str) -> int:
    """Return the length of the longest common subsequence, a bit per letter of ``left``.

    See Hyyro, "Bit-parallel LCS-length computation revisited" (AWOCA 2004).
    """
    places: dict[str, int] = {}
    for index, letter in enumerate(left):
        places[letter] = places.get(letter, 0) | 1 << index
    full = (1 << len(left)) - 1
    unmatched = full
    for letter in right:
        matched = unmatched & places.get(letter, 0)
        unmatched = (unmatched + matched | unmatched - matched) & full
    return len(left) - unmatched.bit_count()
