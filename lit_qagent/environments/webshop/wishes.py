"""What customers want, from WebShop's own files: instructions by people and by rule."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.goal_book import Wish
from lit_qagent.environments.webshop.records import SOURCE, clean_text


def human_wishes(
    products: Sequence[Product], records: Mapping[str, Any], path: Path
) -> Iterator[Wish]:
    """Yield the instructions that people wrote, in the catalogue's order.

    Args:
        products: The catalogue.
        records: Product code to instructions, as in ``items_human_ins.json``.
        path: The file, for errors.

    Raises:
        DataError: A record has another form.
    """
    for position, product in enumerate(products):
        entries = records.get(product.asin)
        if entries is None:
            continue
        if not isinstance(entries, list):
            raise _bad(path, product.asin, "a list of instructions", entries)
        for number, entry in enumerate(entries):
            name = f"{product.asin}[{number}]"
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


def synthetic_wishes(
    products: Sequence[Product], notes: Mapping[str, Any], path: Path
) -> Iterator[Wish]:
    """Yield the instructions that were made by rule, in the catalogue's order.

    Args:
        products: The catalogue.
        notes: Product code to its record in ``items_ins_v2.json``.
        path: The file, for errors.

    Raises:
        DataError: A record has another form.
    """
    for position, product in enumerate(products):
        note = notes.get(product.asin)
        if note is None or note.get("instruction") is None:
            continue
        attributes = _texts(note, "instruction_attributes", path, product.asin)
        if not attributes:
            raise _bad(path, product.asin, "at least one instruction_attribute", attributes)
        yield Wish(
            position=position,
            number=-1,
            words=_instruction(note, path, product.asin),
            attributes=attributes,
        )


def _instruction(entry: Mapping[str, Any], path: Path, name: str) -> str:
    words = entry.get("instruction")
    if not isinstance(words, str) or not words.strip():
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
