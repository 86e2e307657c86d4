"""The Porter stemmer in the form that Lucene has (M. F. Porter, Program 14(3), 1980).

It is the published algorithm with the two changes its author made later, ``bli -> ble`` and
``logi -> log``. Words of one or two letters stay as they are. nltk has the same stemmer, but
importing it takes seconds, so it serves as the reference in the tests.
"""

_VOWELS = frozenset("aeiou")

# Suffix and what replaces it if the stem before it has a measure > 0; the first that fits counts.
_STEP_2 = (
    *(("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance")),
    *(("izer", "ize"), ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e")),
    *(("ousli", "ous"), ("ization", "ize"), ("ation", "ate"), ("ator", "ate")),
    *(("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous")),
    *(("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"), ("logi", "log")),
)
_STEP_3 = (
    *(("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic")),
    *(("ical", "ic"), ("ful", ""), ("ness", "")),
)
# Suffixes that go if the measure is > 1.
_STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent"),
    *("sion", "tion", "ou", "ism", "ate", "iti", "ous", "ive", "ize"),
)


def stem(word: str) -> str:
    """Return the stem of a lower-case word.

    Examples:
        >>> stem("relational"), stem("hoping"), stem("ponies")
        ('relat', 'hope', 'poni')
    """
    if len(word) <= 2:
        return word
    word = _strip_endings(_strip_plural(word))
    if word.endswith("y") and "v" in _pattern(word[:-1]):
        word = word[:-1] + "i"
    word = _replace_suffix(_replace_suffix(word, _STEP_2), _STEP_3)
    return _tidy(_strip_suffix(word))


def _strip_plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _strip_endings(word: str) -> str:
    """Take off -eed, -ed and -ing."""
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    ending = next((ending for ending in ("ed", "ing") if word.endswith(ending)), "")
    if not ending or "v" not in _pattern(word[: -len(ending)]):
        return word
    word = word[: -len(ending)]
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _ends_in_double_consonant(word):
        return word if word.endswith(("l", "s", "z")) else word[:-1]
    return word + "e" if _measure(word) == 1 and _ends_in_cvc(word) else word


def _replace_suffix(word: str, rules: tuple[tuple[str, str], ...]) -> str:
    for suffix, replacement in rules:
        if word.endswith(suffix):
            before = word[: -len(suffix)]
            return before + replacement if _measure(before) > 0 else word
    return word


def _strip_suffix(word: str) -> str:
    for suffix in _STEP_4:
        if word.endswith(suffix):
            # The s or t before -ion stays.
            before = word[:-3] if suffix.endswith("ion") else word[: -len(suffix)]
            return before if _measure(before) > 1 else word
    return word


def _tidy(word: str) -> str:
    """Take off a final -e, and one l of a final -ll."""
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _ends_in_cvc(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _pattern(word: str) -> str:
    """Return ``v`` for each vowel and ``c`` for each consonant; y after a consonant is a vowel."""
    pattern = ""
    for letter in word:
        is_vowel = letter in _VOWELS or (letter == "y" and pattern.endswith("c"))
        pattern += "v" if is_vowel else "c"
    return pattern


def _measure(word: str) -> int:
    """Return m of Porter's form ``[C](VC){m}[V]``."""
    return _pattern(word).count("vc")


def _ends_in_double_consonant(word: str) -> bool:
    return len(word) >= 2 and word[-1] == word[-2] and _pattern(word).endswith("c")


def _ends_in_cvc(word: str) -> bool:
    return _pattern(word).endswith("cvc") and word[-1] not in "wxy"
