import numpy as np
import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.webshop.bulk_catalog import (
    bulk_products,
    bulk_query,
    made_words,
    zipf_shares,
)
from lit_qagent.environments.webshop.lucene import analyze, search_text


def test_equal_arguments_give_equal_catalogues() -> None:
    first = list(bulk_products(1_500, seed=1))
    assert first == list(bulk_products(1_500, seed=1))
    assert first[0].title != next(bulk_products(1, seed=2)).title
    assert len({product.asin for product in first}) == 1_500
    assert all(len(product.asin) == 10 for product in first)


def test_texts_are_as_long_as_those_of_the_real_products() -> None:
    # The 1,000 real products have 107.6 terms in the mean.
    lengths = [len(analyze(search_text(product))) for product in bulk_products(300)]
    assert 85 < np.mean(lengths) < 125


def test_words_are_different_and_frequent_ones_shorter() -> None:
    words = made_words()
    assert len(set(words)) == len(words)
    assert len(words[0]) <= len(words[-1])
    shares = zipf_shares(4)
    assert shares == pytest.approx(np.array([12, 18, 22, 25]) / 25)


def test_a_query_has_words_of_its_product() -> None:
    product = next(bulk_products(1))
    rng = np.random.default_rng(0)
    query = bulk_query(product, rng)
    assert set(analyze(query)) - {"find", "me"} <= set(analyze(search_text(product))) | {
        *analyze(" ".join(product.attributes))
    }
    assert 10 <= len(analyze(query)) <= 30


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_products must be >= 1, got 0"):
        next(bulk_products(0))
