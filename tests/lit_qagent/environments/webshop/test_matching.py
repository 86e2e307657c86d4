import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_qagent.environments.webshop.matching import _common_length, token_set_ratio


@pytest.mark.parametrize(
    ("left", "right", "ratio"),
    [
        ("red", "red", 100),
        ("slim fit", "Fit, slim!", 100),
        ("fit", "slim fit", 100),  # one side holds nothing of its own
        ("abc", "xyz", 0),
        ("abcd", "abxy", 50),  # longest common subsequence 2: 2 * 2 / 8
        ("red cup", "red mug", 71),  # "red cup" and "red mug" share "red u": 2 * 5 / 14
        ("", "red", 0),
        ("--", "red", 0),
        ("caf\u00e9", "caf", 100),  # Latin-1 letters beyond ASCII are dropped, as in thefuzz
        ("\u00e9", "\u00e9", 0),
        ("\u4e2d \u6587", "\u6587", 100),
        ("\u0130x", "ix", 100),  # lower case letter by letter: no letter becomes two
        ("\u0391\u03a3", "\u03b1\u03c3", 100),  # no final sigma
        ("snake_case", "snake case", 100),
    ],
)
def test_by_hand(left: str, right: str, ratio: int) -> None:
    assert token_set_ratio(left, right) == ratio
    assert token_set_ratio(right, left) == ratio


@given(*[st.text(alphabet="abcd ", max_size=70)] * 2)
def test_the_common_length_equals_the_textbooks(left: str, right: str) -> None:
    previous = [0] * (len(right) + 1)
    for letter in left:
        current = [0]
        for column, other in enumerate(right):
            same = previous[column] + 1 if letter == other else 0
            current.append(max(same, previous[column + 1], current[column]))
        previous = current
    assert _common_length(left, right) == previous[-1]
