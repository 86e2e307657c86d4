"""Which terms each product of a catalogue has, and how often."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.lucene import encode_length, search_text, to_term
from lit_qagent.environments.webshop.lucene_words import split_words

_CHUNK_PRODUCTS = 20_000


def listed_keys(product: Product) -> list[str]:
    """Return the keys under which a product is listed besides its words.

    They stand for the searches ``<a> attribute``, ``<c> category`` and ``<q> query``; no word of a
    text can look like them.
    """
    return [
        *dict.fromkeys(f"\0a{attribute}" for attribute in product.attributes),
        f"\0c{product.category}",
        f"\0q{product.query}",
    ]


def is_listed_key(term: str) -> bool:
    """Return whether a term is one of `listed_keys`."""
    return term.startswith("\0")


def encode_term(term: str) -> bytes:
    """Return a term as the index keeps it; a damaged text may have halves of characters."""
    return term.encode(errors="surrogatepass")


def catalog_hash(products: Sequence[Product]) -> str:
    """Return a hash of all that a search depends on; a product store knows its own."""
    known = getattr(products, "content_hash", None)
    if isinstance(known, str):
        return known
    digest = hashlib.sha256()
    for product in products:
        hash_product(digest, product)
    return digest.hexdigest()


def hash_product(digest: "hashlib._Hash", product: Product) -> None:
    """Add the next product of a catalogue to its hash."""
    digest.update(repr([product.asin, search_text(product), listed_keys(product)]).encode())


class TermCounts:
    """How often each product has each term, in chunks of products.

    Args:
        folder: Where the chunks are kept until `clear`; None keeps them in memory.

    Attributes:
        vocabulary: Term to its number, in order of appearance.
        asins: Product codes in the catalogue's order.
        lengths: Each product's length byte, see `encode_length`.
        num_terms: Terms of all products together.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.vocabulary: dict[str, int] = {}
        self.asins: list[str] = []
        self.lengths = bytearray()
        self.num_terms = 0
        self._term_of_word: dict[str, int] = {}
        self._folder = folder
        self._chunks: list[np.ndarray | Path] = []
        self._terms: list[int] = []
        self._found: list[int] = []
        self._sizes: list[int] = []

    def add(self, product: Product) -> None:
        """Count the terms of the next product."""
        ids = self._term_of_word
        found: list[int] = []
        for word in split_words(search_text(product)):
            term = ids.get(word)
            found.append(self._learn(word) if term is None else term)
        counts = Counter(found)
        counts.pop(-1, None)
        num_terms = counts.total()
        for key in listed_keys(product):
            counts[self._number(key)] = 0
        self._terms.extend(counts)
        self._found.extend(counts.values())
        self._sizes.append(len(counts))
        self.lengths.append(encode_length(num_terms))
        self.num_terms += num_terms
        self.asins.append(product.asin)
        if len(self._sizes) == _CHUNK_PRODUCTS:
            self.flush()

    def flush(self) -> None:
        """Close the chunk: its triples of term, product and count, sorted by term."""
        first = len(self.asins) - len(self._sizes)
        numbers = np.arange(first, len(self.asins), dtype=np.int32)
        owners = np.repeat(numbers, self._sizes)
        triples = np.array([self._terms, owners, self._found], dtype=np.int32)
        triples = triples[:, np.argsort(triples[0], kind="stable")]
        self._terms, self._found, self._sizes = [], [], []
        if self._folder is None:
            self._chunks.append(triples)
            return
        path = self._folder / f"counts-{len(self._chunks)}.npy"
        np.save(path, triples)
        self._chunks.append(path)

    def chunks(self) -> Iterator[np.ndarray]:
        """Return the chunks in order of the products."""
        for chunk in self._chunks:
            yield np.load(chunk, allow_pickle=False) if isinstance(chunk, Path) else chunk

    def clear(self) -> None:
        """Remove the chunks' files."""
        for chunk in self._chunks:
            if isinstance(chunk, Path):
                chunk.unlink()

    def _learn(self, word: str) -> int:
        term = to_term(word)
        number = self._term_of_word[word] = self._number(term) if term else -1
        return number

    def _number(self, term: str) -> int:
        return self.vocabulary.setdefault(term, len(self.vocabulary))
