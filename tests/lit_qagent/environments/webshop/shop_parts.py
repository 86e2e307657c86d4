"""Two products and a goal by hand."""

import random
from typing import Any

from lit_qagent.core.records import Observation
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.goals import Goal

SHIRT = Product(
    asin="B100",
    title="Lina cotton slim fit shirt",
    description="A shirt for every day.",
    bullets=("Cotton", "Slim fit", "Soft"),
    prices=(23.5,),
    price=23.5,
    product_category="Clothing \u203a Everyday Wear \u203a Shirt",
    category="fashion",
    query="shirt",
    options={"color": ("red", "blue"), "size": ("small", "large")},
    attributes=("cotton", "slim fit", "soft"),
)
LAMP = Product(
    asin="B200",
    title="Orva hand painted lamp",
    description="A lamp for every day.",
    bullets=("Hand painted",),
    prices=(30.0, 50.0),
    price=41.0,
    product_category="Home \u203a Living Spaces \u203a Lamp",
    category="garden",
    query="lamp",
    options={"color": ("red", "green")},
    attributes=("hand painted",),
)


def make_goal(**changes: object) -> Goal:
    values: dict[str, Any] = {
        "asin": SHIRT.asin,
        "title": SHIRT.title,
        "query": SHIRT.query,
        "product_category": SHIRT.product_category,
        "attributes": ("cotton", "slim fit"),
        "options": {"color": "red", "size": "small"},
        "price_upper": 40.0,
        "instruction": "i need a red cotton slim fit shirt in size small, "
        "and price lower than 40.00 dollars",
    }
    values.update(changes)
    return Goal(**values)


def shop_commands(observation: Observation, rng: random.Random) -> str:
    """Draw a click, or a query on the search page."""
    if observation.admissible:
        return rng.choice(observation.admissible)
    return f"search[{rng.choice(['shirt', 'red lamp', 'steel kettle', 'zebra'])}]"
