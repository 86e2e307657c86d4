"""How Lucene's StandardTokenizer splits a text: Unicode's word boundaries (UAX 29), on `re` alone.

A word is a run of letters and digits with some punctuation inside; every Han or Hiragana sign and
every emoji is a word of its own. Which signs are emoji was fixed when Lucene's grammar was made
(Unicode 12.1); later versions took many away, so they are listed here.
"""

import re
import sys
import unicodedata
from functools import cache

_MAX_WORD_CHARS = 255  # Lucene cuts longer words into pieces

# UAX 29: MidLetter, MidNumLet with the single quote, MidNum.
_MID_LETTER = ":\u00b7\u0387\u055f\u05f4\u2027\ufe13\ufe55\uff1a"
_MID_BOTH = ".'\u2018\u2019\u2024\ufe52\uff07\uff0e"
_MID_NUMBER = ",;\u037e\u0589\u060c\u060d\u066c\u07f8\u2044\ufe10\ufe14\ufe50\ufe54\uff0c\uff1b"
_HAN_HIRAGANA = (
    "\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3041-\u3096\u309d-\u309f"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufad9\U0001b001-\U0001b11e\U0001f200"
    "\U00020000-\U0003134a"
)
_EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388"
    "\u23cf\u23e9-\u23f3\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605"
    "\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d\u2721\u2728"
    "\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1"
    "\u27b0\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e"
    "\U0001f17f\U0001f18e\U0001f191-\U0001f19a\U0001f1ad-\U0001f1e5\U0001f201-\U0001f20f"
    "\U0001f21a\U0001f22f\U0001f232-\U0001f23a\U0001f23c-\U0001f23f\U0001f249-\U0001f3fa"
    "\U0001f400-\U0001f53d\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f774-\U0001f77f"
    "\U0001f7d5-\U0001f7ff\U0001f80c-\U0001f80f\U0001f848-\U0001f84f\U0001f85a-\U0001f85f"
    "\U0001f888-\U0001f88f\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a\U0001f93c-\U0001f945"
    "\U0001f947-\U0001fffd"
)
_SKIN_TONE = "\U0001f3fb-\U0001f3ff"

# The same for ASCII in lower case, several times as fast; a test compares them.
_ASCII_WORD = re.compile(
    r"_*[a-z0-9]+(?:(?:_+|(?<=[a-z])[.':](?=[a-z])|(?<=[0-9])[.,;'](?=[0-9]))[a-z0-9]+)*_*"
)


def split_words(text: str) -> list[str]:
    """Return the words of a text, lower case, in order.

    Examples:
        >>> split_words("Don't mix 1,000 of B&W_2: \u2665 \u7389\u7c73")
        ["don't", 'mix', '1,000', 'of', 'b', 'w_2', '\u2665', '\u7389', '\u7c73']
    """
    text = text.lower()
    words = _ASCII_WORD.findall(text) if text.isascii() else split_unicode(text)
    if all(len(word) <= _MAX_WORD_CHARS for word in words):
        return words
    return [
        word[start : start + _MAX_WORD_CHARS]
        for word in words
        for start in range(0, len(word), _MAX_WORD_CHARS)
    ]


def split_unicode(text: str) -> list[str]:
    """Return the words of a lower-case text in any script, whatever their length."""
    return _unicode_word().findall(text)


@cache
def _unicode_word() -> re.Pattern[str]:
    letters, digits = _signs_of("L", "Nl"), _signs_of("Nd")
    marks, joiners = _signs_of("M"), _signs_of("Pc")
    word = letters + digits
    emoji = f"[{_EMOJI}]\ufe0f?(?:\u200d[{_EMOJI}]\ufe0f?|[{_SKIN_TONE}])*"
    return re.compile(
        f"(?:{emoji}|[{_HAN_HIRAGANA}])"
        # The first choice repeats the second for ASCII, which even such a text mostly is.
        f"|(?:[a-z0-9]+|(?![{_HAN_HIRAGANA}])[{word}]|(?<=[{word}{joiners}{marks}])[{marks}]"
        f"|[{joiners}]+(?=[{word}])|(?<=[{word}])[{joiners}]+"
        f"|(?<=[{letters}])[{_MID_LETTER}{_MID_BOTH}](?=[{letters}])"
        f"|(?<=[{digits}])[{_MID_NUMBER}{_MID_BOTH}](?=[{digits}]))+"
    )


@cache
def _signs_of(*categories: str) -> str:
    """Return the signs of some Unicode categories as the inside of a character class."""
    points = [
        point
        for point in range(sys.maxunicode + 1)
        if unicodedata.category(chr(point)).startswith(categories)
    ]
    ranges: list[list[int]] = []
    for point in points:
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
