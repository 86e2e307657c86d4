"""Builds the arrays of a search index in one pass over the products and two over the counts."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.lucene import length_factors
from lit_qagent.environments.webshop.search_counts import TermCounts, encode_term, is_listed_key

# A term that at least this share of the products has gets a value for every product.
_DENSE_SHARE = 0.25


class IndexArrays(NamedTuple):
    """What a search reads; T terms, N products, E (term, product) pairs, D dense terms.

    Attributes:
        terms: The terms in UTF-8, sorted, one after the other.
        term_ends: Where each term ends in ``terms``.  # [T]
        starts: Where each term's pairs start; the last value is E.  # [T + 1]
        products: Product positions, ascending within a term.  # [E]
        factors: For each pair 1 + count * length factor, see `length_factors`.  # [E]
        peaks: The largest factor of each term.  # [T]
        dense_terms: Terms that many products have, ascending.  # [D]
        dense: Their factors by product, 1 where the product lacks the term.  # [D, N]
        ranks: Rank of each product by asin, which decides ties.  # [N]
        num_filled: Number of products with at least one term, as a single value.  # [1]
    """

    terms: np.ndarray
    term_ends: np.ndarray
    starts: np.ndarray
    products: np.ndarray
    factors: np.ndarray
    peaks: np.ndarray
    dense_terms: np.ndarray
    dense: np.ndarray
    ranks: np.ndarray
    num_filled: np.ndarray


def build_arrays(products: Iterable[Product], folder: Path | None = None) -> IndexArrays:
    """Return the index of a catalogue.

    Args:
        products: The catalogue; read once.
        folder: Where the arrays are made, each in its file; None keeps them in memory.
    """
    counts = TermCounts(folder)
    for product in products:
        counts.add(product)
    counts.flush()
    arrays = _arrange(counts, _Maker(folder))
    counts.clear()
    return arrays


class _Maker:
    """Makes arrays in memory, or each in a file of a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def empty(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return an array to be filled."""
        if self._folder is None or 0 in shape:
            array: np.ndarray = np.empty(shape, dtype)
            if self._folder is not None:
                np.save(self._folder / f"{name}.npy", array)
            return array
        path = self._folder / f"{name}.npy"
        return np.asarray(
            np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                path, mode="w+", dtype=dtype, shape=shape
            )
        )

    def keep(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return a copy of a finished array."""
        array = self.empty(name, values.shape, values.dtype.type)
        array[...] = values
        return array


def _arrange(counts: TermCounts, make: _Maker) -> IndexArrays:
    """Bring the counts of all chunks together by term."""
    names = sorted(counts.vocabulary, key=encode_term)
    encoded = [encode_term(name) for name in names]
    # Terms are numbered anew, in the order in which they are sorted.
    numbers = np.empty(len(names), dtype=np.int64)
    numbers[[counts.vocabulary[name] for name in names]] = np.arange(len(names))
    sizes = np.zeros(len(names), dtype=np.int64)
    for terms, _, _ in counts.chunks():
        sizes += np.bincount(numbers[terms], minlength=len(names))
    is_word = np.array([not is_listed_key(name) for name in names], dtype=bool)
    dense_terms = np.flatnonzero(is_word & (sizes >= _DENSE_SHARE * len(counts.asins)))
    num_filled = int(np.count_nonzero(np.frombuffer(bytes(counts.lengths), dtype=np.uint8)))
    ranks = np.empty(len(counts.asins), dtype=np.int32)
    ranks[sorted(range(len(ranks)), key=counts.asins.__getitem__)] = np.arange(len(ranks))
    starts = make.keep("starts", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    arrays = IndexArrays(
        terms=make.keep("terms", np.frombuffer(b"".join(encoded), dtype=np.uint8)),
        term_ends=make.keep("term_ends", np.cumsum([len(name) for name in encoded], dtype=int)),
        starts=starts,
        products=make.empty("products", (int(starts[-1]),), np.int32),
        factors=make.empty("factors", (int(starts[-1]),), np.float32),
        peaks=make.keep("peaks", np.ones(len(names), dtype=np.float32)),
        dense_terms=make.keep("dense_terms", dense_terms),
        dense=make.empty("dense", (len(dense_terms), len(ranks)), np.float32),
        ranks=make.keep("ranks", ranks),
        num_filled=make.keep("num_filled", np.array([num_filled])),
    )
    _fill(arrays, counts, numbers)
    return arrays


def _fill(arrays: IndexArrays, counts: TermCounts, numbers: np.ndarray) -> None:
    """Write the pairs of all chunks to their places.

    Args:
        arrays: ``products``, ``factors``, ``peaks`` and ``dense`` are filled.
        counts: The chunks, in order of the products.
        numbers: Each term's number in ``arrays`` by its number in the chunks.  # [T]
    """
    by_length = length_factors(counts.num_terms / max(1, int(arrays.num_filled[0])) or 1.0)
    lengths = np.frombuffer(bytes(counts.lengths), dtype=np.uint8)
    rows = np.full(len(numbers), -1)
    rows[arrays.dense_terms] = np.arange(len(arrays.dense_terms))
    arrays.dense[...] = 1
    free = arrays.starts[:-1].copy()
    for chunk in counts.chunks():
        terms, owners, found = numbers[chunk[0]], chunk[1], chunk[2]
        # Equal terms stand together: a pair's place is its term's free place plus its turn.
        heads = np.flatnonzero(np.diff(terms, prepend=-1))
        turns = np.arange(len(terms)) - np.repeat(heads, np.diff(heads, append=len(terms)))
        places = free[terms] + turns
        values = np.float32(1) + found.astype(np.float32) * by_length[lengths[owners]]
        arrays.products[places], arrays.factors[places] = owners, values
        is_dense = rows[terms] >= 0
        arrays.dense[rows[terms[is_dense]], owners[is_dense]] = values[is_dense]
        np.maximum.at(arrays.peaks, terms, values)
        free += np.bincount(terms, minlength=len(numbers))
