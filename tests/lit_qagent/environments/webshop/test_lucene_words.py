import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_qagent.environments.webshop.lucene_words import split_unicode, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Red-Cup, 2 pcs!", ["red", "cup", "2", "pcs"]),
        ("don't o'clock. dogs' a.b c. 'x'", ["don't", "o'clock", "dogs", "a.b", "c", "x"]),
        ("1,000.50 3;4 5:6 a:b x,y 8.5in", ["1,000.50", "3;4", "5", "6", "a:b", "x", "y", "8.5in"]),
        ("us_7 __init__ _ a_.b", ["us_7", "__init__", "a_", "b"]),
        (
            "caf\u00e9 cafe\u0301 \u00fcber-gro\u00df",
            ["caf\u00e9", "cafe\u0301", "\u00fcber", "gro\u00df"],
        ),
        ("1\u20442 m\u00b2 5\uff1a6 size\uff1am", ["1\u20442", "m", "5", "6", "size\uff1am"]),
        (
            "\u7389\u7c73 \u3042\u3044 \u30ab\u30ca",
            ["\u7389", "\u7c73", "\u3042", "\u3044", "\u30ab\u30ca"],
        ),
        (
            "\u2764\u2764\ufe0f\u2605ok\u273f\u2122",
            ["\u2764", "\u2764\ufe0f", "\u2605", "ok", "\u2122"],
        ),
        (
            "\U0001f44d\U0001f3fd \U0001f469\u200d\U0001f680",
            ["\U0001f44d\U0001f3fd", "\U0001f469\u200d\U0001f680"],
        ),
        ("", []),
        (" \u2014 \u00bf? \u0301", []),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_word_too_long_is_cut_into_pieces() -> None:
    assert [len(word) for word in split_words("x" * 600 + " y")] == [255, 255, 90, 1]


@given(st.text(alphabet="abz019_.,;:'- ", max_size=24))
def test_the_fast_path_for_ascii_equals_the_general_one(text: str) -> None:
    assert split_words(text) == split_unicode(text)


@given(st.text(max_size=40))
def test_no_text_breaks_it_and_words_are_parts_of_the_text(text: str) -> None:
    lowered, place = text.lower(), 0
    for word in split_words(text):
        place = lowered.index(word, place) + len(word)
    assert all(
        letter in "".join(split_words(text))
        for letter in lowered
        if letter.isascii() and letter.isalnum()
    )
