"""Products from WebShop's own files, unchanged: what its loader makes of them."""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError
from lit_qagent.core.text import clean_text
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.records import SOURCE, JsonArray

_DEFAULT_PRICE = 100.0
_MAX_ASIN_CHARS = 10
_NO_ATTRIBUTES = ("DUMMY_ATTR",)
_NOT_PRICE = re.compile(r"[^\d.]", re.ASCII)


@dataclass(kw_only=True, slots=True)
class ReadingReport:
    """What reading a products file left out or changed.

    Attributes:
        sha256: Hash of the products file.
        num_skipped: Records without a usable code, which the original skips too.
        num_repeated: Records whose code came before, which the original skips too.
        num_unpriced: Products without a price; the original takes 100 dollars.
        num_priced_by_chance: Products with two prices, between which theirs was drawn.
        num_cleaned: Texts with control characters or the like, which became spaces.
    """

    sha256: str = ""
    num_skipped: int = 0
    num_repeated: int = 0
    num_unpriced: int = 0
    num_priced_by_chance: int = 0
    num_cleaned: int = 0


def read_products(
    path: Path,
    notes: Mapping[str, Any],
    rng: random.Random,
    report: ReadingReport,
    max_products: int | None = None,
) -> Iterator[Product]:
    """Yield the products of a file in its order.

    Args:
        path: A file in the form of ``items_shuffle.json``.
        notes: Product code to its record in ``items_ins_v2.json``.
        rng: Draws what a product with two prices costs, one draw each, as the original does.
        report: Filled while reading.
        max_products: Stop after so many records.

    Raises:
        DataError: The file is missing, damaged, holds no products, or a record has another form.
    """
    records = JsonArray(path)
    seen: set[str] = set()
    for number, raw in enumerate(records):
        if max_products is not None and number >= max_products:
            records.skip_rest()
            break
        asin = _text(raw, "asin", f"WebShop products file {path}, record {number}")
        if asin == "nan" or len(asin) > _MAX_ASIN_CHARS or not asin.strip():
            report.num_skipped += 1
            continue
        if asin in seen:
            report.num_repeated += 1
            continue
        seen.add(asin)
        where = f"WebShop products file {path}, record {number} (asin {asin!r})"
        yield _Parser(where, report).parse(raw, notes.get(asin), rng)
    report.sha256 = records.sha256
    if not seen:
        raise DataError(f"WebShop products file {path} holds no products; {SOURCE}")


class _Parser:
    """Turns one record into a product; errors say where it is."""

    def __init__(self, where: str, report: ReadingReport) -> None:
        self._where = where
        self._report = report

    def parse(self, raw: Mapping[str, Any], note: object, rng: random.Random) -> Product:
        prices = self._prices(raw)
        self._report.num_priced_by_chance += len(prices) > 1
        return Product(
            asin=self._clean(raw["asin"]),
            title=self._clean(_text(raw, "name", self._where)),
            description=self._clean(_text(raw, "full_description", self._where)),
            bullets=self._bullets(raw),
            prices=prices,
            price=rng.uniform(*prices[:2]) if len(prices) > 1 else prices[0],
            product_category=self._clean(_text(raw, "product_category", self._where)),
            category=self._clean(_text(raw, "category", self._where)),
            query=self._clean(_text(raw, "query", self._where)).lower().strip(),
            options=self._options(raw),
            attributes=self._attributes(note),
        )

    def _clean(self, text: str) -> str:
        cleaned = clean_text(text)
        if cleaned != text:
            self._report.num_cleaned += 1
        return cleaned

    def _bullets(self, raw: Mapping[str, Any]) -> tuple[str, ...]:
        bullets = self._required(raw, "small_description")
        if isinstance(bullets, str):
            bullets = [bullets]
        if not _is_texts(bullets):
            raise self._bad("small_description", bullets, "a text or a list of texts")
        return tuple(self._clean(bullet) for bullet in bullets)

    def _prices(self, raw: Mapping[str, Any]) -> tuple[float, ...]:
        pricing = self._required(raw, "pricing")
        if pricing is None or pricing == "":
            self._report.num_unpriced += 1
            return (_DEFAULT_PRICE,)
        if not isinstance(pricing, str) or "$" not in pricing:
            raise self._bad("pricing", pricing, "text such as '$9.99' or '$5$12.50', or ''")
        try:
            return tuple(float(_NOT_PRICE.sub("", part)) for part in pricing.split("$")[1:])
        except ValueError:
            raise self._bad("pricing", pricing, "a number after every $") from None

    def _options(self, raw: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        groups = self._required(raw, "customization_options")
        if groups is None or groups == "":
            return {}
        if not isinstance(groups, Mapping):
            raise self._bad("customization_options", groups, "an object, or ''")
        options = {}
        for name, contents in groups.items():
            if contents is None:
                continue
            if not isinstance(contents, list) or not all(map(_has_value, contents)):
                raise self._bad(
                    f"customization_options[{name!r}]",
                    contents,
                    "null or a list of objects with a text 'value'",
                )
            values = (self._clean(content["value"]) for content in contents)
            options[self._clean(name).lower()] = tuple(
                value.strip().replace("/", " | ").lower().replace("\n", " ").replace("\t", " ")
                for value in values
            )
        return options

    def _attributes(self, note: object) -> tuple[str, ...]:
        if note is None:
            return _NO_ATTRIBUTES
        if not isinstance(note, Mapping):
            raise self._bad("its record in the attributes file", note, "an object")
        attributes = note.get("attributes", _NO_ATTRIBUTES)
        if not _is_texts(attributes):
            raise self._bad("'attributes' in the attributes file", attributes, "a list of texts")
        return tuple(self._clean(attribute) for attribute in attributes)

    def _required(self, raw: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 (JSON)
        if key not in raw:
            raise DataError(f"{self._where}: it has no {key!r}; {SOURCE}")
        return raw[key]

    def _bad(self, name: str, value: object, expected: str) -> DataError:
        return DataError(
            f"{self._where}: {name} must be {expected}, got {repr(value)[:80]}; {SOURCE}"
        )


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key!r} must be text, got {repr(value)[:80]}; {SOURCE}")
    return value


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def _has_value(content: object) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("value"), str)
