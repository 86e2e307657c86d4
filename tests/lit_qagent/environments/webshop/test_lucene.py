import numpy as np
import pytest

from lit_qagent.environments.webshop.lucene import (
    analyze,
    count_terms,
    decode_length,
    encode_length,
    length_factors,
    search_text,
    weigh_term,
)
from tests.lit_qagent.environments.webshop.shop_parts import SHIRT


def test_terms_are_stems_without_stop_words() -> None:
    assert analyze("The Men's shirts, and WOMEN\u2019S jackets for hiking: don't") == [
        *("men", "shirt", "women", "jacket", "hike", "don't")
    ]
    assert analyze("of the, and; to") == []
    assert count_terms("red reds blue") == {"red": 2, "blue": 1}


def test_a_product_is_found_by_title_description_first_feature_and_options() -> None:
    assert search_text(SHIRT) == (
        "Lina cotton slim fit shirt A shirt for every day. Cotton "
        "color: red, blue, and size: small, large"
    )


def test_the_length_byte_is_that_of_smallfloat() -> None:
    # Exact up to 40; then, of what is above 24, the four leading bits.
    assert [decode_length(encode_length(length)) for length in range(41)] == list(range(41))
    assert [decode_length(encode_length(n)) for n in (41, 43, 55, 56, 59, 60, 343, 344)] == [
        *(40, 42, 54, 56, 56, 60, 312, 344)
    ]
    bytes_ = [encode_length(length) for length in range(100_000)]
    assert bytes_ == sorted(bytes_)
    assert encode_length(2**31 - 1) == 255
    assert all(encode_length(decode_length(byte)) == byte for byte in range(256))


def test_the_parts_of_a_score_by_hand() -> None:
    # Two of five documents have the term: ln(1 + 3.5 / 2.5); a document of mean length has the
    # factor 1 / 0.9.
    assert weigh_term(5, 2, 1) == pytest.approx(np.log(2.4), rel=1e-6)
    assert weigh_term(5, 2, 3) == pytest.approx(3 * np.log(2.4), rel=1e-6)
    factors = length_factors(10)
    assert factors.dtype == np.float32
    assert factors[10] == pytest.approx(1 / 0.9, rel=1e-6)
    assert factors[0] == pytest.approx(1 / (0.9 * 0.6), rel=1e-6)
