"""Goals: what a customer asks for, and the words they ask with."""

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Task
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.splits import SplitSizes, draw_splits
from lit_qagent.environments.webshop.catalog import NUM_TITLE_FEATURES, CatalogSpec, Product
from lit_qagent.environments.webshop.words import OPTION_PHRASES

_PRICE_STEP = 10.0
_NUM_PRICE_LIMITS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a purchase is compared with.

    Attributes:
        asin: The product the goal was made from.
        title: Its title.
        query: Its query.
        product_category: Its category path.
        attributes: Attributes asked for.
        options: Option kind to the value asked for; only the values where kinds are not known.
        price_upper: Most the customer pays, in dollars.
        instruction: All of it in words.
    """

    asin: str
    title: str
    query: str
    product_category: str
    attributes: tuple[str, ...]
    options: Mapping[str, str] | tuple[str, ...]
    price_upper: float
    instruction: str

    @classmethod
    def from_task(cls, task: Task) -> Self:
        """Read the goal back from a task's data."""
        data = {name: task.data[name] for name in cls.__slots__}
        options = data["options"]
        if not isinstance(options, Mapping):
            data["options"] = tuple(options)
        return cls(**{**data, "attributes": tuple(data["attributes"])})

    def to_task(self, split: str) -> Task:
        """Return the task of this goal; its id is a hash of its content."""
        data: dict[str, Any] = asdict(self)
        data["attributes"] = list(self.attributes)
        digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        return Task(
            task_id=f"shop-{digest[:12]}", instruction=self.instruction, split=split, data=data
        )


def draw_goals(
    products: Sequence[Product], sizes: SplitSizes, spec: CatalogSpec, *, hidden_attributes: bool
) -> dict[str, list[Task]]:
    """Return tasks of every split; no two share both product and options.

    Args:
        products: The catalogue.
        sizes: Tasks per split.
        spec: Its seed decides products, options, attributes and price limits.
        hidden_attributes: Ask also for attributes that the title does not show.

    Raises:
        ConfigError: The catalogue has too few combinations of product and options.
    """
    choices = [
        (product, dict(zip(product.options, values, strict=True)))
        for product in products
        for values in itertools.product(*product.options.values())
    ]
    if len(choices) < sizes.total:
        raise ConfigError(
            f"{sizes.total} shop tasks asked for, but the catalogue has {len(choices)} "
            "combinations of product and options; lower splits or raise catalog.num_products"
        )
    return {
        split: [
            _make_goal(product, options, spec, hidden_attributes).to_task(split)
            for product, options in dealt
        ]
        for split, dealt in draw_splits(choices, sizes, spec.seed).items()
    }


def _make_goal(
    product: Product, options: Mapping[str, str], spec: CatalogSpec, hidden_attributes: bool
) -> Goal:
    rng = random.Random(derive_seed(spec.seed, "goal", product.asin, *options.values()))
    shown = product.attributes if hidden_attributes else product.attributes[:NUM_TITLE_FEATURES]
    attributes = tuple(rng.sample(shown, spec.goal_attributes))
    price_upper = _draw_price_limit(product.price, rng)
    return Goal(
        asin=product.asin,
        title=product.title,
        query=product.query,
        product_category=product.product_category,
        attributes=attributes,
        options=options,
        price_upper=price_upper,
        instruction=_phrase(product.query, attributes, options, price_upper),
    )


def _draw_price_limit(price: float, rng: random.Random) -> float:
    """Return the larger of two of the four multiples of ten above the price, as WebShop does."""
    first = int(price // _PRICE_STEP) + 1
    limits = [_PRICE_STEP * (first + index) for index in range(_NUM_PRICE_LIMITS)]
    return max(rng.sample(limits, 2))


def _phrase(
    noun: str, attributes: Sequence[str], options: Mapping[str, str], price_upper: float
) -> str:
    phrases = [OPTION_PHRASES[kind].format(value=value) for kind, value in options.items()]
    before = "".join(phrase for phrase in phrases if not phrase.startswith(" "))
    after = "".join(phrase for phrase in phrases if phrase.startswith(" "))
    wish = f"{before}{' '.join([*attributes, noun])}{after}"
    article = "an" if wish[0] in "aeiou" else "a"
    return f"i need {article} {wish}, and price lower than {price_upper:.2f} dollars"
