import json
from typing import Any

import numpy as np
import pytest

from lit_qagent.environments.webshop import search_index
from lit_qagent.environments.webshop.bulk_catalog import bulk_products, bulk_query
from lit_qagent.environments.webshop.catalog import CatalogSpec, Product, generate_catalog
from lit_qagent.environments.webshop.search_index import SearchIndex
from tests.data_folder import data_file
from tests.lit_qagent.environments.webshop.search_reference import NaiveSearch
from tests.lit_qagent.environments.webshop.shop_parts import LAMP, SHIRT


def make_product(asin: str, title: str, **changes: object) -> Product:
    values: dict[str, Any] = {
        "asin": asin,
        "title": title,
        "description": "",
        "bullets": (),
        "prices": (1.0,),
        "price": 1.0,
        "product_category": "",
        "category": "garden",
        "query": "",
    }
    return Product(**{**values, **changes})


def make_catalog(*titles: str) -> list[Product]:
    return [make_product(f"B{number}", title) for number, title in enumerate(titles)]


def test_the_original_index_gives_the_same_rankings() -> None:
    products = [
        read_product(raw)
        for raw in json.loads(data_file("webshop/items_shuffle_1000.json").read_text())
    ]
    queries = json.loads(data_file("webshop/search_vectors.json").read_text())["queries"]
    index = SearchIndex.build(products)
    assert len(queries) == 61
    for query in queries:
        found = index.hits(query["query"], 50)
        assert [products[hit.position].asin for hit in found] == [
            asin for asin, _ in query["top"]
        ], query["query"]
        # The recorded scores have four digits; the mean length differs by 1 in 10,000.
        assert [hit.score for hit in found] == pytest.approx(
            [score for _, score in query["top"]], abs=2e-3
        )


def read_product(raw: dict[str, Any]) -> Product:
    """Read what a search needs of a product of the original's files."""
    options = {
        kind.lower(): tuple(value["value"].strip().replace("/", " | ").lower() for value in values)
        for kind, values in (raw["customization_options"] or {}).items()
        if values
    }
    bullets = raw["small_description"]
    return make_product(
        raw["asin"],
        raw["name"],
        description=raw["full_description"],
        bullets=tuple(bullets if isinstance(bullets, list) else [bullets]),
        options=options,
    )


@pytest.mark.parametrize("k", [1, 10, 50, 700])
@pytest.mark.parametrize(("unpruned", "probes"), [(0, 20), (0, 2_000), (1_000, 0)])
def test_the_ranking_is_that_of_scoring_every_product(
    k: int, unpruned: int, probes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "_MAX_UNPRUNED", unpruned)
    monkeypatch.setattr(search_index, "_CHEAP_PAIRS", 0)
    monkeypatch.setattr(search_index, "_NUM_PROBES", probes)
    products = list(bulk_products(600, seed=3))
    index, naive = SearchIndex.build(products), NaiveSearch(products)
    rng = np.random.default_rng(0)
    queries = [bulk_query(products[int(i)], rng) for i in rng.integers(0, 600, 15)]
    queries += ["babe", "color", "color size model", "babe bebe color speaker", "speaker rose 5f"]
    for query in queries:
        assert index.hits(query, k) == naive.hits(query, k), query


def test_pruning_holds_for_rare_and_common_words_in_any_mixture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_index, "_MAX_UNPRUNED", 0)
    monkeypatch.setattr(search_index, "_CHEAP_PAIRS", 0)
    products = list(bulk_products(400, seed=5))
    index, naive = SearchIndex.build(products), NaiveSearch(products)
    by_frequency = [term for term, _ in naive.found.most_common()]
    rng = np.random.default_rng(0)
    num_pruned = 0
    for _ in range(300):
        places = np.geomspace(1, len(by_frequency), 20).astype(int) - 1
        query = " ".join(by_frequency[place] for place in rng.choice(places, rng.integers(1, 7)))
        k = int(rng.integers(1, 15))
        assert index.hits(query, k) == naive.hits(query, k), (query, k)
        if terms := index._query_terms(query):
            num_pruned += len(index._candidates(terms, k)) < len(index._score_all(terms)[0])
    assert num_pruned > 200


@pytest.mark.parametrize("unpruned", [0, 1_000])
def test_ties_are_decided_by_asin_wherever_the_product_stands(
    unpruned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "_MAX_UNPRUNED", unpruned)
    products = generate_catalog(CatalogSpec(num_products=300))
    index, naive = SearchIndex.build(products), NaiveSearch(products)
    for query in ("lamp", "shirt", "for every day", "cotton shirt red", "red"):
        assert index.hits(query, 20) == naive.hits(query, 20)
    shuffled = [make_product("B3", "cup"), make_product("B1", "cup"), make_product("B2", "cup")]
    assert SearchIndex.build(shuffled).rank("cups", 2) == [1, 2]


def test_nothing_to_find_is_an_empty_ranking() -> None:
    index = SearchIndex.build(make_catalog("red cup", "", "the"))
    for query in ("", "  ", "the of", "zebra", "\0cgarden", "<a>", "<a> x", "<c> x", "<q> x"):
        assert index.rank(query, 5) == []
    assert index.rank("cup", 0) == []
    assert index.rank("cup", 5) == [0]
    for empty in (SearchIndex.build([]), SearchIndex.build(make_catalog("", "the"))):
        assert empty.rank("cup", 5) == []
        assert empty.rank("<c> shoes", 5) == []


def test_special_first_words() -> None:
    products = [*make_catalog("x", "y"), SHIRT, LAMP]
    index = SearchIndex.build(products)
    assert index.rank("<a> slim fit", 5) == [2]
    assert index.rank("<a> slim", 5) == []
    assert index.rank("<c> garden", 5) == [0, 1, 3]
    assert index.rank("<c> garden", 2) == [0, 1]
    assert index.rank("<q> lamp", 5) == [3]
    everything = index.rank("<r>", 50)
    assert sorted(everything) == [0, 1, 2, 3]
    assert index.rank("<r>", 50) == everything
    assert len(index.rank("<r>", 2)) == 2
    draws = {tuple(index.rank(f"<r> {number}", 4)) for number in range(20)}
    assert len(draws) > 1


def test_odd_texts_are_indexed() -> None:
    odd = ["\U0001f600 caf\u00e9", "\u7389\u7c73", "x" * 700, "a\0b", "\ud800 lone"]
    index = SearchIndex.build(make_catalog(*odd))
    assert index.rank("\u7c73", 5) == [1]
    assert index.rank("\U0001f600", 5) == [0]
    assert index.rank("x" * 700, 5) == [2]
    assert index.rank("lone \ud800", 5) == [4]
    half = make_product("B9", "x", category="\ud800")
    assert SearchIndex.build([half]).rank("<c> \ud800", 5) == [0]
