"""The shop's search: ranks a catalogue of any size as the original's Lucene index does."""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.lucene import count_terms, weigh_term
from lit_qagent.environments.webshop.search_build import IndexArrays, build_arrays
from lit_qagent.environments.webshop.search_counts import encode_term

_LISTED = {"<a>": "a", "<c>": "c", "<q>": "q"}
# The threshold of the pruning is looked for among this many products with rare terms.
_NUM_PROBES = 1_000
# A term of so few products is added faster than it is ruled out.
_CHEAP_PAIRS = 10_000
# Up to this many products it takes longer to rule some out than to score all.
_MAX_UNPRUNED = 200_000
_ROUNDING = 2.0**-20


class Hit(NamedTuple):
    """A product found.

    Attributes:
        position: Its place in the catalogue.
        score: BM25 as Lucene computes it.
    """

    position: int
    score: float


class _Term(NamedTuple):
    """A term of a query.

    Attributes:
        number: Its number in the index.
        weight: See `weigh_term`.
        limit: No product's score for the term is above it.
        num_found: Products with the term.
    """

    number: int
    weight: np.float32
    limit: float
    num_found: int


class SearchIndex:
    """Finds products by words; read-only, so every session and branch shares one.

    Args:
        arrays: See `build_arrays`.
    """

    def __init__(self, arrays: IndexArrays) -> None:
        self._arrays = arrays
        self._num_products = len(arrays.ranks)
        self._num_filled = int(arrays.num_filled[0])
        self._dense_rows = {int(term): row for row, term in enumerate(arrays.dense_terms)}

    @classmethod
    def build(cls, products: Iterable[Product]) -> "SearchIndex":
        """Return an index in memory."""
        return cls(build_arrays(products))

    def __len__(self) -> int:
        return self._num_products

    def rank(self, query: str, k: int) -> list[int]:
        """Return the positions of at most ``k`` products, best first, ties by asin.

        A query may start with one of the original's special words: ``<r>`` finds products at
        random (here equal queries find equal ones), ``<a>`` those with an attribute, ``<c>`` of a
        category, ``<q>`` with a query, all three in the catalogue's order.
        """
        first, _, rest = query.strip().partition(" ")
        if first == "<r>":
            rng = random.Random(derive_seed("random search", query))
            return rng.sample(range(self._num_products), min(k, self._num_products))
        if first in _LISTED:
            found, _ = self._pairs(self._find(f"\0{_LISTED[first]}{rest.strip()}"))
            return [int(position) for position in found[:k]]
        return [hit.position for hit in self.hits(query, k)]

    def hits(self, query: str, k: int) -> list[Hit]:
        """Return at most ``k`` products that share a term with the query, best first.

        The result is that of scoring every product; most are ruled out by bounds before.
        """
        terms = self._query_terms(query)
        if not terms or k < 1:
            return []
        if self._num_products <= _MAX_UNPRUNED:
            found, scores = self._score_all(terms)
        else:
            found = self._candidates(terms, k)
            scores = self._score(terms, found)
        return self._best(found, scores, k)

    def _score_all(self, terms: Sequence[_Term]) -> tuple[np.ndarray, np.ndarray]:
        """Return the products with a score, ascending, and their scores."""
        sums = np.zeros(self._num_products)
        for term in terms:
            row = self._dense_rows.get(term.number)
            if row is not None:
                sums += term.weight - term.weight / self._arrays.dense[row]
            else:
                positions, factors = self._pairs(term.number)
                sums[positions] += term.weight - term.weight / factors
        found = np.flatnonzero(sums)
        return found, sums[found].astype(np.float32)

    def _score(self, terms: Sequence[_Term], products: np.ndarray) -> np.ndarray:
        """Return the scores of some products; the same sums in the same order as `_score_all`."""
        sums = np.zeros(len(products))
        for term in terms:
            sums += term.weight - term.weight / self._factors_of(term.number, products)
        return sums.astype(np.float32)

    def _best(self, products: np.ndarray, scores: np.ndarray, k: int) -> list[Hit]:
        """Return the best of some products that have a score, ties by asin."""
        kept = scores > 0
        if np.count_nonzero(kept) > k:
            kept &= scores >= _kth_largest(scores, k)
        products, scores = products[kept], scores[kept]
        order = np.lexsort((self._arrays.ranks[products], -scores))[:k]
        return [Hit(int(products[place]), float(scores[place])) for place in order]

    def _query_terms(self, query: str) -> list[_Term]:
        """Return the terms that the index has, those that can add most first."""
        terms = []
        for name, count in count_terms(query).items():
            number = self._find(name)
            if number >= 0:
                num_found = int(self._arrays.starts[number + 1] - self._arrays.starts[number])
                weight = weigh_term(self._num_filled, num_found, count)
                limit = float(weight - weight / self._arrays.peaks[number])
                terms.append(_Term(number, weight, limit, num_found))
        return sorted(terms, key=lambda term: -term.limit)

    def _candidates(self, terms: Sequence[_Term], k: int) -> np.ndarray:
        """Return the products that can be among the best ``k``, ascending.

        Terms are added up from the weightiest on. As soon as the rest cannot lift a product that
        has none of them into the best k, only products within reach are looked at (MaxScore,
        Turtle and Flood 1995). Sums here are rounded, so every bound has a margin.
        """
        margin = _ROUNDING * (1 + sum(float(term.weight) for term in terms)) * len(terms)
        sums = np.zeros(self._num_products, dtype=np.float32)
        probes = self._probes(terms)
        # Dense terms add a constant to every product; `base` takes it off again.
        base, floor, rest = 0.0, -np.inf, sum(term.limit for term in terms)
        added = 0
        for term in terms:
            if len(probes) >= k and term.num_found > _CHEAP_PAIRS:
                floor = _kth_largest(sums[probes], k)
                if floor + base - rest > margin:
                    break
            base += self._add(term, sums)
            rest -= term.limit
            added += 1
        if len(probes) >= k:
            floor = _kth_largest(sums[probes], k)
        if base or floor > -np.inf:
            found = np.flatnonzero(sums >= floor - rest - margin)
        else:
            found = np.flatnonzero(sums)
        scores = sums[found]
        for term in terms[added:]:
            scores += term.weight - term.weight / self._factors_of(term.number, found)
        return found if len(found) <= k else found[scores >= _kth_largest(scores, k) - margin]

    def _probes(self, terms: Sequence[_Term]) -> np.ndarray:
        """Return products with the rarest terms, without repetition."""
        found: list[np.ndarray] = []
        for term in terms:
            if term.number not in self._dense_rows and sum(map(len, found)) < _NUM_PROBES:
                found.append(self._pairs(term.number)[0][: 2 * _NUM_PROBES])
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int32)

    def _add(self, term: _Term, sums: np.ndarray) -> float:
        """Add a term to all products but for a constant, which is returned."""
        row = self._dense_rows.get(term.number)
        if row is not None:
            sums -= term.weight / self._arrays.dense[row]
            return float(term.weight)
        positions, factors = self._pairs(term.number)
        sums[positions] += term.weight - term.weight / factors
        return 0.0

    def _factors_of(self, number: int, positions: np.ndarray) -> np.ndarray:
        """Return a term's factors of some products, 1 for those without it."""
        row = self._dense_rows.get(number)
        if row is not None:
            values: np.ndarray = self._arrays.dense[row][positions]
            return values
        owners, factors = self._pairs(number)
        places = np.minimum(np.searchsorted(owners, positions), len(owners) - 1)
        return np.where(owners[places] == positions, factors[places], np.float32(1))

    def _pairs(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the products with a term and their factors; nothing for -1."""
        start, end = (self._arrays.starts[number : number + 2]) if number >= 0 else (0, 0)
        return self._arrays.products[start:end], self._arrays.factors[start:end]

    def _find(self, name: str) -> int:
        """Return the number of a term, or -1."""
        wanted, ends = encode_term(name), self._arrays.term_ends
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            start = int(ends[middle - 1]) if middle else 0
            found = self._arrays.terms[start : ends[middle]].tobytes()
            if found == wanted:
                return middle
            low, high = (middle + 1, high) if found < wanted else (low, middle)
        return -1


def _kth_largest(values: np.ndarray, k: int) -> float:
    return float(np.partition(values, len(values) - k)[len(values) - k])
