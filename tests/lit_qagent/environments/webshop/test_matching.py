import pytest

from lit_qagent.environments.webshop.matching import token_set_ratio


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
    ],
)
def test_by_hand(left: str, right: str, ratio: int) -> None:
    assert token_set_ratio(left, right) == ratio
    assert token_set_ratio(right, left) == ratio
