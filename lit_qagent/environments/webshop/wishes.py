"""What customers want, from WebShop's own files: instructions by people and by rule."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError
from lit_qagent.core.text import clean_text
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.goal_book import Wish
from lit_qagent.environments.webshop.records import SOURCE

Found = Sequence[tuple[str, int]]


def find_products(products: Sequence[Product], wanted: Collection[str]) -> list[tuple[str, int]]:
    """Return the code and the position of the wanted products that exist, by position.

    Args:
        products: The catalogue; one that can find a code is not read through.
        wanted: Product codes.
    """
    find = getattr(products, "find", None)
    if find is None:
        pairs = ((product.asin, place) for place, product in enumerate(products))
        return [(asin, place) for asin, place in pairs if asin in wanted]
    found = ((asin, find(asin)) for asin in wanted)
    return sorted(((asin, place) for asin, place in found if place is not None), key=itemgetter(1))


def has_instruction(note: object) -> bool:
    """Say whether a record of ``items_ins_v2.json`` makes synthetic goals."""
    return isinstance(note, Mapping) and note.get("instruction") is not None


def human_wishes(found: Found, records: Mapping[str, Any], path: Path) -> Iterator[Wish]:
    """Yield the instructions that people wrote, in the catalogue's order.

    Args:
        found: Products with instructions, see `find_products`.
        records: Product code to instructions, as in ``items_human_ins.json``.
        path: The file, for errors.

    Raises:
        DataError: A record has another form.
    """
    for asin, position in found:
        entries = records[asin]
        if not isinstance(entries, list):
            raise _bad(path, asin, "a list of instructions", entries)
        for number, entry in enumerate(entries):
            name = f"{asin}[{number}]"
            if not isinstance(entry, Mapping):
                raise _bad(path, name, "an object", entry)
            attributes = _texts(entry, "instruction_attributes", path, name)
            if attributes:  # the original leaves out the others
                yield Wish(
                    position=position,
                    number=number,
                    words=_instruction(entry, path, name).strip("."),
                    attributes=attributes,
                    values=_texts(entry, "instruction_options", path, name),
                )


def synthetic_wishes(found: Found, notes: Mapping[str, Any], path: Path) -> Iterator[Wish]:
    """Yield the instructions that were made by rule, in the catalogue's order.

    Args:
        found: Products with instructions, see `find_products`.
        notes: Product code to its record in ``items_ins_v2.json``.
        path: The file, for errors.

    Raises:
        DataError: A record has another form.
    """
    for asin, position in found:
        note = notes[asin]
        attributes = _texts(note, "instruction_attributes", path, asin)
        if not attributes:
            raise _bad(path, asin, "at least one instruction_attribute", attributes)
        yield Wish(
            position=position,
            number=-1,
            words=_instruction(note, path, asin),
            attributes=attributes,
        )


def _instruction(entry: Mapping[str, Any], path: Path, name: str) -> str:
    words = entry.get("instruction")
    if not isinstance(words, str) or not clean_text(words).strip():
        raise _bad(path, name, "a text 'instruction'", words)
    return clean_text(words)


def _texts(entry: Mapping[str, Any], key: str, path: Path, name: str) -> tuple[str, ...]:
    texts = entry.get(key)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _bad(path, name, f"a list of texts {key!r}", texts)
    return tuple(map(clean_text, texts))


def _bad(path: Path, name: str, expected: str, value: object) -> DataError:
    return DataError(
        f"WebShop file {path}, record {name!r}: expected {expected}, "
        f"got {repr(value)[:80]}; {SOURCE}"
    )
