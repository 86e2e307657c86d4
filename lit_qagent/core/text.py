"""Texts from outside made safe to print, store and show to an LLM."""

import re

# Control characters but tab and line feed, separators that break lines, signs that turn the
# direction of writing, byte order marks, and half letters that no file can hold.
_HALF_LETTERS = "\ud800-\udfff"
_HARMFUL = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff" + _HALF_LETTERS
_HALF_LETTER = re.compile(f"[{_HALF_LETTERS}]")
_HARMFUL_LETTER = re.compile(f"[{_HARMFUL}]")
_HARMFUL_RUN = re.compile(f"[\t\n{_HARMFUL}]+")


def clean_text(text: str) -> str:
    r"""Return a text with blanks for letters that garble logs and prompts; lines stay.

    Examples:
        >>> clean_text("two\nlines\x1b[31m")
        'two\nlines [31m'
    """
    return _HARMFUL_LETTER.sub(" ", text)


def whole_letters(text: str) -> str:
    r"""Return a text with the replacement character for half letters, and else as it is.

    JSON may hold half a letter, as servers cut answers between tokens; no file and no request can.

    Examples:
        >>> whole_letters("Nice \ud83d") == "Nice \ufffd"
        True
    """
    return _HALF_LETTER.sub("\ufffd", text)


def clean_line(text: str) -> str:
    r"""Return a text as one line without letters that garble, and without chat markers.

    Runs of control characters become a blank, and marks of the form ``<|name|>``, by which chat
    templates separate messages, are broken up.

    Examples:
        >>> clean_line(" It rises\n near\x1b[31m <|im_end|>. ")
        'It rises  near [31m < |im_end| >.'
    """
    plain = _HARMFUL_RUN.sub(" ", text).strip()
    return plain.replace("<|", "< |").replace("|>", "| >")
