import math

from lit_qagent.environments.text_index import TextIndex, tokenize


def test_words_are_folded() -> None:
    assert tokenize("The Ponies' glass, and 3 buses of gas") == [
        "pony",
        "glass",
        "3",
        "buse",
        "gas",
    ]


def test_ranking_equals_bm25_by_hand() -> None:
    documents = ["big red cup", "red red cup with a lid", "blue lid", "green"]
    lengths = [3, 4, 2, 1]
    counts = {"red": [1, 2, 0, 0], "lid": [0, 1, 1, 0]}
    mean = sum(lengths) / 4

    def score(position: int) -> float:
        total = 0.0
        for column in counts.values():
            found = sum(count > 0 for count in column)
            idf = math.log(1 + (4 - found + 0.5) / (found + 0.5))
            count = column[position]
            total += idf * count / (count + 0.9 * (1 - 0.4 + 0.4 * lengths[position] / mean))
        return total

    expected = sorted((i for i in range(4) if score(i) > 0), key=lambda i: -score(i))
    assert TextIndex(documents).rank("red lid", 10) == expected == [1, 2, 0]


def test_ties_keep_the_order_and_the_limit_holds() -> None:
    assert TextIndex(["lamp", "rug", "lamp", "lamp"]).rank("lamps", 2) == [0, 2]


def test_nothing_to_find_is_an_empty_ranking() -> None:
    index = TextIndex(["red cup"])
    assert index.rank("", 5) == []
    assert index.rank("the of", 5) == []
    assert index.rank("zebra", 5) == []
    assert TextIndex(["", "the"]).rank("red", 5) == []
    assert TextIndex([]).rank("red", 5) == []
