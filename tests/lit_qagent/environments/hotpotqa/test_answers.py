import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_qagent.environments.hotpotqa.answers import exact_match, f1_score, normalize_answer
from tests.reference import reference_exact_match, reference_f1, reference_normal_words

WORDS = st.sampled_from(
    ["a", "an", "the", "The", "yes", "no", "noanswer", "No.", "red", "Red,", "town", "of", "1874"]
)
PHRASES = st.lists(WORDS, max_size=5).map(" ".join)
ANSWERS = st.one_of(
    PHRASES, st.text(max_size=20), st.text("aAnthe .,-_'\u2013\u00e9 1", max_size=12)
)


@pytest.mark.parametrize(
    ("answer", "gold", "em", "f1"),
    [
        ("The Tin Harbour", "tin harbour!", 1, 1),
        ("Vardholm", "Oster", 0, 0),
        ("Ines Brandt of Vardholm", "Ines Brandt", 0, 2 / 3),  # P 2/4, R 2/2
        ("the red red cup", "red cup", 0, 0.8),  # P 2/3, R 2/2
        ("yes", "yes", 1, 1),
        ("yes it is", "yes", 0, 0),
        ("yes", "yes it is", 0, 0),
        ("no", "yes", 0, 0),
        ("noanswer", "no answer", 0, 0),
        ("", "the", 1, 0),
    ],
)
def test_by_hand(answer: str, gold: str, em: float, f1: float) -> None:
    assert exact_match(answer, gold) == em
    assert f1_score(answer, gold) == pytest.approx(f1)


@given(ANSWERS)
def test_normalisation_equals_the_official_definition(answer: str) -> None:
    assert normalize_answer(answer).split() == reference_normal_words(answer)


@given(ANSWERS, ANSWERS)
def test_scores_equal_the_official_definition(answer: str, gold: str) -> None:
    assert exact_match(answer, gold) == reference_exact_match(answer, gold)
    assert f1_score(answer, gold) == pytest.approx(reference_f1(answer, gold))
