"""The ranking without an index: every product is scored by the formula."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.lucene import (
    analyze,
    count_terms,
    encode_length,
    length_factors,
    search_text,
    weigh_term,
)


class NaiveSearch:
    def __init__(self, products: Sequence[Product]) -> None:
        self.asins = [product.asin for product in products]
        self.counts = [Counter(analyze(search_text(product))) for product in products]
        self.found = Counter(term for counts in self.counts for term in counts)
        self.num_filled = sum(bool(counts) for counts in self.counts)
        total = sum(counts.total() for counts in self.counts)
        self.factors = length_factors(total / self.num_filled if self.num_filled else 1)

    def hits(self, query: str, k: int) -> list[tuple[int, float]]:
        weights = {
            term: weigh_term(self.num_filled, self.found[term], count)
            for term, count in count_terms(query).items()
            if self.found[term]
        }
        scored = []
        for position, counts in enumerate(self.counts):
            factor = self.factors[encode_length(counts.total())]
            parts = [
                float(weight - weight / (np.float32(1) + np.float32(counts[term]) * factor))
                for term, weight in weights.items()
                if counts[term]
            ]
            if parts:
                scored.append((float(np.float32(sum(parts))), position))
        scored.sort(key=lambda pair: (-pair[0], self.asins[pair[1]]))
        return [(position, score) for score, position in scored[:k]]
