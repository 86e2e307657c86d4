"""Products, and a generator of catalogues of any size."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.webshop.words import (
    BRANDS,
    DEPARTMENTS,
    OPTION_VALUES,
    Department,
)

CATEGORY_SEPARATOR = " \u203a "
NUM_TITLE_FEATURES = 2
_NUM_FEATURES = 3
_MAX_OPTIONS = 3
_MAX_VALUES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """One product; beside each field, its key in WebShop's raw files.

    Attributes:
        asin: Product code, unique in a catalogue (``asin``).
        title: Name (``name``).
        description: Text of the description page (``full_description``).
        bullets: Lines of the features page (``small_description``).
        prices: One price, or the ends of a range, in dollars (``pricing``).
        price: What a buyer pays, within ``prices``.
        product_category: Path joined by `CATEGORY_SEPARATOR` (``product_category``).
        category: First-level category (``category``).
        query: The search the product stands for (``query``).
        options: Option kind to its values, lower case (``customization_options``).
        attributes: What the reward compares with a goal's attributes (``attributes``).
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    prices: tuple[float, ...]
    price: float
    product_category: str
    category: str
    query: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()

    @property
    def price_tag(self) -> str:
        """The price as the shop shows it."""
        return " to ".join(f"${price:.2f}" for price in self.prices[:2])


@dataclass(frozen=True, kw_only=True)
class CatalogSpec:
    """What the shop has, and how much its customers ask for.

    Attributes:
        num_products: Size of the catalogue.
        num_options: Kinds of options each product has, such as color and size; 0 to 3.
        values_per_option: Values of each kind; 1 to 8.
        goal_attributes: Attributes a goal asks for; 0 to 2.
        seed: Equal seeds give equal catalogues on every machine.
    """

    num_products: int = 100
    num_options: int = 2
    values_per_option: int = 3
    goal_attributes: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = (
            ("num_products", 1, None),
            ("num_options", 0, _MAX_OPTIONS),
            ("values_per_option", 1, _MAX_VALUES),
            ("goal_attributes", 0, NUM_TITLE_FEATURES),
        )
        for name, low, high in ranges:
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                expected = f">= {low}" if high is None else f"{low} to {high}"
                raise ConfigError(f"catalog.{name} must be {expected}, got {value}")


def generate_catalog(spec: CatalogSpec) -> tuple[Product, ...]:
    """Return a catalogue; kinds of products take turns, everything else is drawn."""
    rng = random.Random(derive_seed(spec.seed, "catalog"))
    kinds = [(department, noun) for department in DEPARTMENTS for noun in department.nouns]
    rng.shuffle(kinds)
    digits = max(3, len(str(2 * spec.num_products)))
    numbers = rng.sample(range(10 ** (digits - 1), 10**digits), spec.num_products)
    return tuple(
        _generate_product(*kinds[index % len(kinds)], f"B{number}", spec, rng)
        for index, number in enumerate(numbers)
    )


def _generate_product(
    department: Department,
    priced_noun: tuple[str, float, float],
    asin: str,
    spec: CatalogSpec,
    rng: random.Random,
) -> Product:
    noun, low, high = priced_noun
    features = rng.sample(department.features, _NUM_FEATURES)
    price = round(rng.uniform(low, high), 2)
    title = " ".join([rng.choice(BRANDS), *features[:NUM_TITLE_FEATURES], noun])
    return Product(
        asin=asin,
        title=title,
        description=f"A {noun} for every day, {' and '.join(features)}.",
        bullets=tuple(feature.capitalize() for feature in features),
        prices=(price,),
        price=price,
        product_category=CATEGORY_SEPARATOR.join([*department.path, noun.capitalize()]),
        category=department.category,
        query=noun,
        options={
            kind: tuple(rng.sample(OPTION_VALUES[kind], spec.values_per_option))
            for kind in department.options[: spec.num_options]
        },
        attributes=tuple(features),
    )
