from dataclasses import replace
from pathlib import Path

import pytest

from lit_qagent.core.errors import DataError
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.product_store import ProductStore, write_products
from lit_qagent.environments.webshop.search_cache import open_search
from lit_qagent.environments.webshop.search_counts import catalog_hash
from tests.lit_qagent.environments.webshop.shop_parts import LAMP, SHIRT

PRODUCTS = (
    *generate_catalog(CatalogSpec(num_products=40)),
    replace(LAMP, title="caf\u00e9 \u7389 \U0001f600\n\u2028 \ud800", options={}, attributes=()),
    SHIRT,
)


def test_products_come_back_as_they_were(tmp_path: Path) -> None:
    write_products(tmp_path / "store", iter(PRODUCTS))
    store = ProductStore(tmp_path / "store")
    assert len(store) == len(PRODUCTS)
    assert tuple(store) == PRODUCTS
    assert (store[0], store[-1]) == (PRODUCTS[0], PRODUCTS[-1])
    assert tuple(store[3:9:2]) == PRODUCTS[3:9:2]
    for index in (len(PRODUCTS), -len(PRODUCTS) - 1):
        with pytest.raises(IndexError):
            store[index]


def test_products_are_found_by_asin(tmp_path: Path) -> None:
    store = write_products(tmp_path / "store", PRODUCTS)
    assert [store.find(product.asin) for product in PRODUCTS] == list(range(len(PRODUCTS)))
    for unknown in ("", "B", "ZZZ", PRODUCTS[0].asin + "0", "\u00e9"):
        assert store.find(unknown) is None


def test_its_hash_is_that_of_the_products_and_a_search_takes_it(tmp_path: Path) -> None:
    store = write_products(tmp_path / "store", PRODUCTS)
    assert store.content_hash == catalog_hash(PRODUCTS) == catalog_hash(store)
    assert store.content_hash != catalog_hash(PRODUCTS[1:])
    assert open_search(store, tmp_path).rank("shirt", 9) == open_search(PRODUCTS).rank("shirt", 9)


def test_two_products_with_one_asin_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two products have the asin 'B100'"):
        write_products(tmp_path / "store", [SHIRT, LAMP, SHIRT])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    write_products(folder, PRODUCTS)
    lines = folder / "products.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b"cotton", b"kotton"))
    with pytest.raises(DataError, match=r"products.jsonl is damaged"):
        ProductStore(folder)


def test_a_store_of_other_fields_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    write_products(folder, PRODUCTS)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"asin"', '"code"'))
    with pytest.raises(DataError, match="write it again"):
        ProductStore(folder)


def test_an_empty_store(tmp_path: Path) -> None:
    store = write_products(tmp_path / "store", [])
    assert len(store) == 0
    assert list(store) == []
    assert store.find("B1") is None
