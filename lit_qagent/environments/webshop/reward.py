"""WebShop's reward for a purchase (Yao et al. 2022, section 3.3, as its code computes it)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_qagent.environments.text_index import STOP_WORDS
from lit_qagent.environments.webshop.catalog import CATEGORY_SEPARATOR, Product
from lit_qagent.environments.webshop.goals import Goal
from lit_qagent.environments.webshop.matching import token_set_ratio
from lit_qagent.environments.webshop.words import OPTION_VALUES

NOUN_RULE = "title words without stop words, colors and sizes"
_MATCH_RATIO = 85
_MIN_SHARED_CATEGORIES = 2
_COLORS = OPTION_VALUES["color"]
_SIZES = frozenset(OPTION_VALUES["size"]) | {"s", "m", "l", "xl", "xxl", "xx-large"}
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Purchase:
    """How well a purchase fits a goal; every part is in [0, 1].

    Attributes:
        reward: ``r_type * (attributes + options + price met) / number of things asked for``.
        r_type: Is it the kind of product asked for.
        r_att: Share of the attributes met; 1 if none was asked for.
        r_option: Share of the options met; 1 if none was asked for.
        r_price: 1 if the price is within the limit.
    """

    reward: float
    r_type: float
    r_att: float
    r_option: float
    r_price: float

    def metrics(self) -> dict[str, float]:
        """Return the parts by name."""
        return {name: getattr(self, name) for name in PARTS}


PARTS = ("r_type", "r_att", "r_option", "r_price")


def judge_purchase(goal: Goal, product: Product, options: Mapping[str, str]) -> Purchase:
    """Compare a purchase with a goal.

    Args:
        goal: What was asked for.
        product: What was bought.
        options: Option kind to the value chosen.
    """
    num_attributes = count_attributes(goal.attributes, product)
    num_options = count_options(list(goal.options.values()), list(options.values()))
    r_price = float(product.price <= goal.price_upper)
    r_type = rate_type(goal, product)
    asked = len(goal.attributes) + len(goal.options) + 1
    return Purchase(
        reward=r_type * (num_attributes + num_options + r_price) / asked,
        r_type=r_type,
        r_att=num_attributes / len(goal.attributes) if goal.attributes else 1.0,
        r_option=num_options / len(goal.options) if goal.options else 1.0,
        r_price=r_price,
    )


def count_attributes(wanted: Sequence[str], product: Product) -> int:
    """Return how many wanted attributes the product has, or its texts mention."""
    texts = (product.title.lower(), " ".join(product.bullets).lower(), product.description.lower())
    return sum(
        any(token_set_ratio(attribute, name) > _MATCH_RATIO for attribute in product.attributes)
        or any(name in text for text in texts)
        for name in wanted
    )


def count_options(wanted: Sequence[str], chosen: Sequence[str]) -> int:
    """Return how many wanted option values were chosen, colors by their plain name."""
    plain = [normalize_color(value) for value in chosen]
    return sum(
        any(token_set_ratio(value, normalize_color(name)) > _MATCH_RATIO for value in plain)
        for name in wanted
    )


def normalize_color(value: str) -> str:
    """Return the first known color in a text, or the text.

    Examples:
        >>> normalize_color("dark blue")
        'blue'
    """
    return next((color for color in _COLORS if color in value), value)


def rate_type(goal: Goal, product: Product) -> float:
    """Return 1, 0.5, 0.1 or 0: how surely the product is of the kind asked for.

    WebShop takes the nouns of both titles from a spaCy tagger. Here every alphabetic title word
    counts as a noun unless it is a stop word, a color or a size.
    """
    score = title_score(goal.title, product.title)
    if score == 0:
        return 0.0
    if score < 0.1:
        return 0.1
    same_query = goal.query == product.query
    if same_query or score > 0.2 or _same_category(goal, product):
        return 1.0
    return 0.5


def title_score(wanted: str, bought: str) -> float:
    """Return the share of the wanted title's nouns in the bought one; 0.2 if it has none."""
    nouns = _nouns(wanted)
    return len(nouns & _nouns(bought)) / len(nouns) if nouns else 0.2


def _nouns(title: str) -> set[str]:
    return set(_WORD.findall(title.lower())) - STOP_WORDS - _SIZES - set(_COLORS)


def _same_category(goal: Goal, product: Product) -> bool:
    separator = CATEGORY_SEPARATOR.strip()
    wanted = {part.strip() for part in goal.product_category.split(separator)}
    bought = {part.strip() for part in product.product_category.split(separator)}
    return len(wanted & bought) >= _MIN_SHARED_CATEGORIES
