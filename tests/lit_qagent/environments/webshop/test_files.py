import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.core.errors import DataError
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.files import ReadingReport, read_products
from tests.lit_qagent.environments.webshop.shop_files import make_notes, make_raw, write_files


def read(
    folder: Path,
    products: object = None,
    notes: Mapping[str, Any] | None = None,
    **limits: Any,  # noqa: ANN401
) -> tuple[list[Product], ReadingReport]:
    report = ReadingReport()
    path = Path(write_files(folder, products)["products"])
    known = make_notes() if notes is None else notes
    return list(read_products(path, known, random.Random(0), report, **limits)), report


def test_what_becomes_of_a_record(tmp_path: Path) -> None:
    products, report = read(tmp_path)
    kettle, ranged, bare, scarf = products
    assert (kettle.title, kettle.query, kettle.prices) == (
        "Tesk steel kettle model 0",
        "tea kettles",
        (25.5,),
    )
    assert kettle.options == {"size": ("small", "1 | 2 gallon"), "color": ("navy blue", "red")}
    assert kettle.attributes == ("stainless steel", "easy clean")
    assert (bare.prices, bare.price, bare.bullets, bare.options) == (
        (100.0,),
        100.0,
        ("One line",),
        {},
    )
    assert bare.attributes == ()
    assert scarf.attributes == ("DUMMY_ATTR",)  # the original's word for a product without notes
    assert ranged.price == random.Random(0).uniform(10, 30.25)
    assert (report.num_unpriced, report.num_priced_by_chance) == (1, 1)


def test_records_without_a_usable_code_are_skipped_and_counted(tmp_path: Path) -> None:
    odd = [make_raw(0), make_raw(0), make_raw(1, asin="nan"), make_raw(2, asin="B0123456789")]
    products, report = read(tmp_path, odd)
    assert [product.asin for product in products] == ["B000"]
    assert (report.num_skipped, report.num_repeated) == (2, 1)


def test_a_beginning_of_the_file(tmp_path: Path) -> None:
    some, report = read(tmp_path, max_products=2)
    every, whole = read(tmp_path)
    assert some == every[:2]
    assert report.sha256 == whole.sha256 != ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "'name' must be text, got None"),
        ({"full_description": 3}, "'full_description' must be text, got 3"),
        ({"small_description": [1]}, r"small_description must be a text or a list .* got \[1\]"),
        ({"pricing": "cheap"}, "pricing must be text such as .* got 'cheap'"),
        ({"pricing": "$5$"}, r"pricing must be a number after every \$, got '\$5\$'"),
        ({"pricing": 5}, "pricing must be text such as .* got 5"),
        ({"customization_options": ["red"]}, r"customization_options must be an object, or ''"),
        (
            {"customization_options": {"Color": ["red"]}},
            r"customization_options\['Color'\] must be",
        ),
        ({"customization_options": {"Color": [{"value": 3}]}}, ".*a text 'value'"),
    ],
)
def test_a_record_of_another_form_is_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=rf"products\.json, record 1 \(asin 'B001'\): {message}"):
        read(tmp_path, [make_raw(0), make_raw(1, **changes)])


@pytest.mark.parametrize("key", ["pricing", "customization_options", "small_description"])
def test_a_record_without_price_or_options_is_named(tmp_path: Path, key: str) -> None:
    raw = make_raw(1)
    del raw[key]
    with pytest.raises(DataError, match=rf"record 1 \(asin 'B001'\): it has no '{key}'"):
        read(tmp_path, [make_raw(0), raw])


@pytest.mark.parametrize("asin", [None, 7])
def test_a_record_without_a_code_is_named(tmp_path: Path, asin: object) -> None:
    with pytest.raises(DataError, match=r"products\.json, record 0: 'asin' must be text"):
        read(tmp_path, [make_raw(0, asin=asin)])


def test_notes_of_another_form_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'attributes' in the attributes file must be a list"):
        read(tmp_path, notes={"B000": {"attributes": "soft"}})
    with pytest.raises(DataError, match="its record in the attributes file must be an object"):
        read(tmp_path, notes={"B000": ["soft"]})


def test_no_products_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"products\.json holds no products"):
        read(tmp_path, [make_raw(0, asin="nan")])


def test_letters_that_break_logs_become_spaces_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    raw = make_raw(0, name="a\x00b\x1b[31m\u2028c\u202ed")
    text = json.dumps([raw]).replace("whistles", "\\ud800histles")  # half a letter
    path.write_text(text, encoding="utf-8")
    report = ReadingReport()
    [product] = read_products(path, {}, random.Random(0), report)
    assert product.title == "a b [31m c d"
    assert product.description.encode() == b"A kettle that  histles."
    assert report.num_cleaned == 2
