"""Lucene's English analysis and BM25 as Anserini uses them, without Java.

The original shop searches a Lucene index. What decides its rankings is here: which terms a text
has, and the numbers that a score is made of. Lucene counts in 32-bit floats and keeps the length
of a document in one byte. A library that scores by exact lengths (bm25s) puts other products into
the first ten for 25 of 61 recorded queries; with these numbers all 61 rankings are the same.
"""

import math
from collections import Counter
from functools import lru_cache

import numpy as np

from lit_qagent.environments.text_index import STOP_WORDS
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.lucene_words import split_words
from lit_qagent.environments.webshop.porter import stem

_K1 = np.float32(0.9)
_B = np.float32(0.4)
_ONE = np.float32(1.0)
_POSSESSIVES = ("'s", "\u2019s", "\uff07s")


def search_text(product: Product) -> str:
    """Return the words a product is found by, as WebShop's index has them."""
    options = ", and ".join(
        f"{kind}: {', '.join(values)}" for kind, values in product.options.items()
    )
    first_bullet = product.bullets[0] if product.bullets else ""
    return " ".join([product.title, product.description, first_bullet, options])


def analyze(text: str) -> list[str]:
    """Return the stems of a text's words in order, stop words left out.

    Examples:
        >>> analyze("The women's running shoes, size 8.5")
        ['women', 'run', 'shoe', 'size', '8.5']
    """
    return [term for word in split_words(text) if (term := to_term(word))]


@lru_cache(maxsize=100_000)
def to_term(word: str) -> str:
    """Return what the index has of a lower-case word: its stem, or nothing for a stop word."""
    if word.endswith(_POSSESSIVES):
        word = word[:-2]
    return "" if word in STOP_WORDS else stem(word)


def count_terms(query: str) -> dict[str, int]:
    """Return the terms of a query and how often it has each, in order of appearance."""
    return Counter(analyze(query))


def weigh_term(num_documents: int, num_found: int, count: int) -> np.float32:
    """Return a term's weight: its rarity times how often the query has it.

    Args:
        num_documents: Documents in the index.
        num_found: Documents with the term.
        count: Times the query has it.
    """
    idf = math.log(1 + (num_documents - num_found + 0.5) / (num_found + 0.5))
    return np.float32(count) * np.float32(idf)


def length_factors(mean_length: float) -> np.ndarray:
    """Return, for each length byte, what a term's count is multiplied with.

    With f the factor of a document, n the count of a term in it and w the term's weight, the
    document's score for the term is ``w - w / (1 + n f)``, in 32-bit floats.

    Args:
        mean_length: Terms per document; not 0.
    """
    lengths = np.array([decode_length(byte) for byte in range(256)], dtype=np.float32)
    return _ONE / (_K1 * ((_ONE - _B) + _B * lengths / np.float32(mean_length)))


def encode_length(num_terms: int) -> int:
    """Return the byte that Lucene keeps of a document's length (its ``SmallFloat``).

    Lengths up to 40 are exact; of longer ones the four leading bits above 40 are kept.
    """
    if num_terms < _NUM_EXACT:
        return num_terms
    return _NUM_EXACT + _to_four_bits(num_terms - _NUM_EXACT)


def decode_length(byte: int) -> int:
    """Return the length that a byte stands for.

    Examples:
        >>> decode_length(encode_length(40)), decode_length(encode_length(1000))
        (40, 984)
    """
    bits = byte - _NUM_EXACT
    if bits < 8:
        return byte
    return _NUM_EXACT + (((bits & 7) | 8) << ((bits >> 3) - 1))


def _to_four_bits(number: int) -> int:
    """Return a float of four bits, the leading one implied, as an integer that sorts alike."""
    shift = number.bit_length() - 4
    if shift < 0:
        return number
    return ((number >> shift) & 7) | (shift + 1) << 3


# As many short lengths are exact as the longest possible length leaves bytes free.
_NUM_EXACT = 255 - _to_four_bits(2**31 - 1)
