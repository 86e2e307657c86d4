import pytest

from lit_qagent.environments.webshop.queries import list_queries


@pytest.mark.parametrize(
    ("instruction", "queries"),
    [
        (
            "i need a red slim fit shirt in size small, and price lower than 40.00 dollars",
            ("red slim fit shirt", "fit shirt", "shirt"),
        ),
        (
            "i need an organic tea with mint flavor, and price lower than 10.00 dollars",
            ("organic tea", "tea"),
        ),
        ("Find me lamps", ("lamps",)),
        ("in a hurry", ("in a hurry", "a hurry", "hurry")),
    ],
)
def test_queries_come_from_the_words_alone(instruction: str, queries: tuple[str, ...]) -> None:
    assert list_queries(instruction) == queries
