"""Generated catalogues of any size, with texts as long and words as many as a real shop's."""

from collections.abc import Iterator
from itertools import product as combinations

import numpy as np

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.webshop.catalog import CATEGORY_SEPARATOR, Product
from lit_qagent.environments.webshop.words import BRANDS, DEPARTMENTS, OPTION_VALUES

_BATCH = 1_000
_TITLE_WORDS, _BULLET_WORDS, _DESCRIPTION_WORDS = 8, 12, 60
_NUM_BULLETS, _NUM_VALUES = 3, 4
_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "st", "tr")
_RHYMES = ("a", "e", "i", "o", "u", "an", "el", "in", "or", "um", "ash", "est", "ing", "ock")
_NUM_WORDS = 200_000


def bulk_products(num_products: int, seed: int = 0) -> Iterator[Product]:
    """Return products one after the other; equal arguments give equal products.

    Words are made of syllables and drawn by Zipf's law, as in natural text; every product also has
    a word of its own, as a model number is. A product has about a hundred words to be found by.

    Args:
        num_products: Size of the catalogue.
        seed: Decides everything but the words there are.
    """
    if num_products < 1:
        raise ConfigError(f"num_products must be >= 1, got {num_products}")
    rng = np.random.default_rng(derive_seed(seed, "bulk catalog"))
    words, shares = np.array(made_words(), dtype=object), zipf_shares(_NUM_WORDS)
    per_product = _TITLE_WORDS + _NUM_BULLETS * _BULLET_WORDS + _DESCRIPTION_WORDS
    for first in range(0, num_products, _BATCH):
        size = min(_BATCH, num_products - first)
        drawn = np.searchsorted(shares, rng.random((size, per_product)))
        choices = rng.integers(0, 2**31, (size, 8))
        for row, texts in enumerate(words[drawn].tolist()):
            yield _product(first + row, texts, choices[row].tolist())


def bulk_query(product: Product, rng: np.random.Generator) -> str:
    """Return a query in the form of a shopper's request, its words taken from a product."""
    some = rng.choice(product.description.rstrip(".").split(), size=5).tolist()
    options = ", and ".join(
        f"{kind}: {values[rng.integers(len(values))]}" for kind, values in product.options.items()
    )
    wishes = f"{product.attributes[0]}, {' '.join(some[:2])}, {some[2]}"
    return f"find me {wishes} {product.query} with {' '.join(some[3:])} with {options}"


def made_words() -> list[str]:
    """Return the words there are, the most frequent first; frequent ones are shorter."""
    syllables = ["".join(parts) for parts in combinations(_ONSETS, _RHYMES)]
    base = len(syllables)
    words = []
    for number in range(base, base + _NUM_WORDS):
        word = ""
        while number:
            number, digit = divmod(number, base)
            word += syllables[digit]
        words.append(word)
    return words


def zipf_shares(num_words: int) -> np.ndarray:
    """Return, for each rank, the share of all words that are of this rank or a more frequent."""
    shares = np.cumsum(1.0 / np.arange(1, num_words + 1))
    return np.asarray(shares / shares[-1])


def _product(number: int, texts: list[str], choices: list[int]) -> Product:
    """Return a product of drawn words."""
    department = DEPARTMENTS[choices[0] % len(DEPARTMENTS)]
    noun, low, high = department.nouns[choices[1] % len(department.nouns)]
    features = department.features
    kept = tuple(dict.fromkeys(features[choice % len(features)] for choice in choices[2:5]))
    price = round(low + (high - low) * (choices[5] % 1000) / 1000, 2)
    title, texts = texts[:_TITLE_WORDS], texts[_TITLE_WORDS:]
    bullets = [
        " ".join(texts[start : start + _BULLET_WORDS])
        for start in range(0, _NUM_BULLETS * _BULLET_WORDS, _BULLET_WORDS)
    ]
    description = " ".join(texts[_NUM_BULLETS * _BULLET_WORDS :])
    start = choices[6] % 4
    # An odd factor keeps codes apart and out of order.
    code = number * 2_654_435_761 % 2**32
    return Product(
        asin=f"B0{code:08X}",
        title=f"{BRANDS[choices[7] % len(BRANDS)]} {' '.join(title)} {noun} model {code:x}",
        description=f"{description}.",
        bullets=(f"{kept[0]}: {bullets[0]}", *bullets[1:]),
        prices=(price,),
        price=price,
        product_category=CATEGORY_SEPARATOR.join([*department.path, noun.capitalize()]),
        category=department.category,
        query=noun,
        options={
            kind: OPTION_VALUES[kind][start : start + _NUM_VALUES]
            for kind in department.options[:2]
        },
        attributes=kept,
    )
