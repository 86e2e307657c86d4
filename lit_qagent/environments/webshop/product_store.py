"""A catalogue on disk: products are read when they are looked at, so any number fits in memory."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, overload

import numpy as np

from lit_qagent.core.errors import DataError
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.index_files import (
    map_array,
    map_bytes,
    read_manifest,
    written_whole,
)
from lit_qagent.environments.webshop.search_counts import hash_product

_KIND, _VERSION = "webshop product store", 1
_FIELDS = tuple(field.name for field in fields(Product))


class ProductStore(Sequence[Product]):
    """The products of a folder in their order; read-only and memory-mapped.

    Args:
        folder: Written by `write_products`.

    Attributes:
        content_hash: The `catalog_hash` of the products.

    Raises:
        DataError: The folder is missing, damaged or of another version.
    """

    def __init__(self, folder: Path) -> None:
        facts = read_manifest(folder, _KIND, _VERSION)
        if facts["fields"] != list(_FIELDS):
            raise DataError(
                f"{folder} has products with the fields {facts['fields']}, expected "
                f"{list(_FIELDS)}; write it again with this version"
            )
        self.content_hash = str(facts["content_hash"])
        self._lines = map_bytes(folder / "products.jsonl")
        self._ends = map_array(folder / "ends.npy")
        self._asins = map_array(folder / "asins.npy")
        self._order = map_array(folder / "order.npy")

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Product: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Product]: ...
    def __getitem__(self, index: int | slice) -> Product | Sequence[Product]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"product {index} of {len(self)}")
        start = int(self._ends[position - 1]) if position else 0
        return _from_json(self._lines[start : int(self._ends[position])])

    def find(self, asin: str) -> int | None:
        """Return the position of a product by its code, or None."""
        wanted = asin.encode()
        place = int(np.searchsorted(self._asins, wanted))
        if place == len(self) or self._asins[place] != wanted:
            return None
        return int(self._order[place])


def write_products(folder: Path, products: Iterable[Product]) -> ProductStore:
    """Write a catalogue to a folder, whole or not at all, and open it.

    Args:
        folder: Replaced if it exists.
        products: Read once, one at a time.

    Raises:
        DataError: Two products have one asin.
    """
    facts: dict[str, Any] = {"kind": _KIND, "version": _VERSION, "fields": list(_FIELDS)}
    digest = hashlib.sha256()
    asins: list[bytes] = []
    ends: list[int] = []
    size = 0
    with written_whole(folder, facts) as aside:
        with (aside / "products.jsonl").open("wb") as file:
            for product in products:
                size += file.write(_to_json(product))
                ends.append(size)
                asins.append(product.asin.encode())
                hash_product(digest, product)
        # An empty catalogue still needs codes of some width.
        codes = np.array(asins, dtype=np.bytes_ if asins else "S1")
        order = np.argsort(codes, kind="stable")
        codes = codes[order]
        twice = np.flatnonzero(codes[1:] == codes[:-1])
        if len(twice):
            raise DataError(
                f"two products have the asin {codes[twice[0]].decode()!r}; "
                "a catalogue has each code once, drop one of them"
            )
        np.save(aside / "ends.npy", np.array(ends, dtype=np.int64))
        np.save(aside / "asins.npy", codes)
        np.save(aside / "order.npy", order)
        facts.update(content_hash=digest.hexdigest(), num_products=len(ends))
    return ProductStore(folder)


def _to_json(product: Product) -> bytes:
    values = [getattr(product, name) for name in _FIELDS]
    return (json.dumps(values, separators=(",", ":")) + "\n").encode()


def _from_json(line: bytes) -> Product:
    return Product(**dict(zip(_FIELDS, map(_freeze, json.loads(line)), strict=True)))


def _freeze(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Return a JSON value with tuples for its lists, as products have them."""
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    return {key: _freeze(item) for key, item in value.items()} if isinstance(value, dict) else value
