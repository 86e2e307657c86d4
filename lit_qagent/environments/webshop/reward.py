"""WebShop's reward for a purchase (Yao et al. 2022, section 3.3, as its code computes it)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_qagent.environments.webshop.catalog import CATEGORY_SEPARATOR, Product
from lit_qagent.environments.webshop.goals import Goal
from lit_qagent.environments.webshop.matching import token_set_ratio
from lit_qagent.environments.webshop.nouns import GENERATED_NOUNS, Nouns
from lit_qagent.environments.webshop.words import OPTION_VALUES

_MATCH_RATIO = 85
_MIN_SHARED_CATEGORIES = 2
Wanted = str | tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardRule:
    """What the comparison of a purchase with a goal rests on.

    Attributes:
        nouns: Finds the nouns of a title.
        colors: Options are compared by the first of these names in them.
        pairs: Compare a chosen value with the wanted kind and value in one text, as the original
            does where a goal names kinds. A value whose words are all in that text counts, so
            that ``large`` counts for ``size: x-large``.
    """

    nouns: Nouns = GENERATED_NOUNS
    colors: Sequence[str] = OPTION_VALUES["color"]
    pairs: bool = False


_GENERATED = RewardRule()


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


def judge_purchase(
    goal: Goal, product: Product, options: Mapping[str, str], rule: RewardRule = _GENERATED
) -> Purchase:
    """Compare a purchase with a goal.

    Args:
        goal: What was asked for.
        product: What was bought.
        options: Option kind to the value chosen.
        rule: How titles and options are compared.
    """
    num_attributes = count_attributes(goal.attributes, product)
    num_options = count_options(_wanted_options(goal, rule), list(options.values()), rule.colors)
    r_price = float(product.price <= goal.price_upper)
    r_type = rate_type(goal, product, rule.nouns)
    asked = len(goal.attributes) + len(goal.options) + 1
    return Purchase(
        reward=(num_attributes + num_options + r_price) / asked * r_type,
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


def count_options(
    wanted: Sequence[Wanted], chosen: Sequence[str], colors: Sequence[str] = _GENERATED.colors
) -> int:
    """Return how many wanted options were chosen, colors by their plain name.

    Args:
        wanted: Values, or pairs of kind and value; a pair is compared as its text is written in
            Python, which is what the original's matching makes of it.
        chosen: Values.
        colors: Names of colors.
    """
    plain = [str(normalize_color(value, colors)) for value in chosen]
    names = [str(normalize_color(name, colors)) for name in wanted]
    return sum(
        any(token_set_ratio(value, name) > _MATCH_RATIO for value in plain) for name in names
    )


def normalize_color(value: Wanted, colors: Sequence[str] = _GENERATED.colors) -> Wanted:
    """Return the first known color in a text, or the text; of a pair, one of the two must be it.

    Examples:
        >>> normalize_color("dark blue")
        'blue'
        >>> normalize_color(("color", "dark blue"))
        ('color', 'dark blue')
    """
    return next((color for color in colors if color in value), value)


def rate_type(goal: Goal, product: Product, nouns: Nouns = GENERATED_NOUNS) -> float:
    """Return 1, 0.5, 0.1 or 0: how surely the product is of the kind asked for.

    Args:
        goal: What was asked for.
        product: What was bought.
        nouns: Finds the nouns of both titles.
    """
    score = title_score(goal.title, product.title, nouns)
    if score == 0:
        return 0.0
    if score < 0.1:
        return 0.1
    same_query = goal.query == product.query
    if same_query or score > 0.2 or _same_category(goal, product):
        return 1.0
    return 0.5


def title_score(wanted: str, bought: str, nouns: Nouns = GENERATED_NOUNS) -> float:
    """Return how many of the wanted title's nouns the bought one has, per noun; 0.2 without any.

    A noun that comes twice in the wanted title counts once above the line and twice below it.
    """
    found = nouns(wanted)
    return len(set(found) & set(nouns(bought))) / len(found) if found else 0.2


def _wanted_options(goal: Goal, rule: RewardRule) -> Sequence[Wanted]:
    if not isinstance(goal.options, Mapping):
        return goal.options
    return list(goal.options.items()) if rule.pairs else list(goal.options.values())


def _same_category(goal: Goal, product: Product) -> bool:
    separator = CATEGORY_SEPARATOR.strip()
    wanted = {part.strip() for part in goal.product_category.split(separator)}
    bought = {part.strip() for part in product.product_category.split(separator)}
    return len(wanted & bought) >= _MIN_SHARED_CATEGORIES
