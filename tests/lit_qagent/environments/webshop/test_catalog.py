import itertools
from collections import Counter

import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.engine import BACK, BUY, NEXT, PREVIOUS, SUBPAGES
from lit_qagent.environments.webshop.matching import token_set_ratio
from lit_qagent.environments.webshop.words import DEPARTMENTS, OPTION_PHRASES, OPTION_VALUES
from tests.lit_qagent.environments.webshop.shop_parts import LAMP, SHIRT


def test_a_catalogue_has_its_size_and_unique_short_codes() -> None:
    products = generate_catalog(CatalogSpec(num_products=300, num_options=3, values_per_option=4))
    assert len({product.asin for product in products}) == 300
    assert {len(product.asin) for product in products} == {4}
    assert {len(product.options) for product in products} == {3}
    assert {len(v) for product in products for v in product.options.values()} == {4}


def test_kinds_of_products_take_turns() -> None:
    counts = Counter(product.query for product in generate_catalog(CatalogSpec(num_products=60)))
    assert set(counts.values()) == {2}


def test_a_catalogue_is_the_same_in_every_process() -> None:
    spec = CatalogSpec(num_products=3, num_options=1, values_per_option=2)
    shown = [(p.asin, p.title, p.price_tag, dict(p.options)) for p in generate_catalog(spec)]
    assert shown == [
        ("B641", "Wispa soft slim fit jacket", "$93.08", {"color": ("yellow", "blue")}),
        ("B643", "Calden hand painted eco friendly rug", "$34.79", {"color": ("green", "blue")}),
        (
            "B737",
            "Tesk deep cleansing plant based candle",
            "$30.10",
            {"scent": ("lemon", "coconut")},
        ),
    ]


def test_seeds_make_different_catalogues() -> None:
    assert generate_catalog(CatalogSpec(seed=1)) != generate_catalog(CatalogSpec(seed=2))


def test_price_tags() -> None:
    assert SHIRT.price_tag == "$23.50"
    assert LAMP.price_tag == "$30.00 to $50.00"


@pytest.mark.parametrize("kind", sorted(OPTION_VALUES))
def test_values_of_a_kind_differ_for_the_reward_and_from_every_button(kind: str) -> None:
    assert kind in OPTION_PHRASES
    for first, second in itertools.combinations(OPTION_VALUES[kind], 2):
        assert token_set_ratio(first, second) <= 85, (first, second)
    buttons = {name.lower() for name in (BACK, BUY, NEXT, PREVIOUS, *SUBPAGES)}
    assert not buttons & set(OPTION_VALUES[kind])


def test_a_department_never_offers_one_value_in_two_kinds() -> None:
    for department in DEPARTMENTS:
        values = [value for kind in department.options for value in OPTION_VALUES[kind]]
        assert len(values) == len(set(values)), department.category


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_products": 0}, "catalog.num_products must be >= 1, got 0"),
        ({"num_options": 4}, "catalog.num_options must be 0 to 3, got 4"),
        ({"values_per_option": 9}, "catalog.values_per_option must be 1 to 8, got 9"),
        ({"goal_attributes": -1}, "catalog.goal_attributes must be 0 to 2, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CatalogSpec(**settings)
