"""The goals of WebShop's files: frozen by a seed, in the original's order, made when asked for.

A goal is kept as numbers (a product, a combination of its options, a price limit), so that the
millions of synthetic goals of the full files cost a few bytes each.
"""

import hashlib
import itertools
import json
import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lit_qagent.core.errors import DataError
from lit_qagent.core.records import Task
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.goals import Goal
from lit_qagent.environments.webshop.records import SOURCE

GoalKind = Literal["human", "synthetic"]
_ORDER_SEED = 233
_PRICE_LIMITS = tuple(10.0 * number for number in range(1, 100))
_NUM_LIMITS = 4
_NO_LIMIT = 1_000_000.0
_MAX_GOALS = 50_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What customers want of one product, in words; several goals where options combine.

    Attributes:
        position: The product.
        number: Which of the product's instructions it is; -1 for a synthetic one.
        words: The instruction without options and price.
        attributes: Attributes asked for.
        values: Option values asked for, of a human goal.
    """

    position: int
    number: int
    words: str
    attributes: tuple[str, ...]
    values: tuple[str, ...] = ()


class GoalBook:
    """All goals of a catalogue.

    Args:
        products: The catalogue.
        wishes: One per product or instruction, in the catalogue's order.
        limits: The price limit of each wish.
        nums: How many goals each wish makes.

    Raises:
        DataError: There are no goals, or far too many.
    """

    def __init__(
        self,
        products: Sequence[Product],
        wishes: Sequence[Wish],
        limits: Sequence[float],
        nums: Sequence[int],
    ) -> None:
        self._products = products
        self._wishes = wishes
        self._limits = array("d", limits)
        self._ends = array("Q", itertools.accumulate(nums))
        total = self._ends[-1] if self._ends else 0
        if not total:
            raise DataError(f"the WebShop files give no goals at all; {SOURCE}")
        if total > _MAX_GOALS:
            asin = products[wishes[max(range(len(nums)), key=nums.__getitem__)].position].asin
            raise DataError(
                f"the WebShop files give {total} goals, more than {_MAX_GOALS}; product {asin!r} "
                f"alone has {max(nums)} combinations of options; {SOURCE}"
            )
        self._order = array("I", range(total))
        random.Random(_ORDER_SEED).shuffle(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def goal(self, index: int) -> Goal:
        """Return a goal by its index, the original's ``fixed_<index>``."""
        number, combination = self._find(index)
        wish, limit = self._wishes[number], self._limits[number]
        product = self._products[wish.position]
        options: Mapping[str, str] | tuple[str, ...] = wish.values
        text = wish.words
        if wish.number < 0:
            options = _combine(product, combination)
            named = ", and ".join(f"{kind}: {value}" for kind, value in options.items())
            text += f" with {named}" if named else ""
        if limit < _NO_LIMIT:
            text += f", and price lower than {limit:.2f} dollars"
        return Goal(
            asin=product.asin,
            title=product.title,
            query=product.query,
            product_category=product.product_category,
            attributes=wish.attributes,
            options=options,
            price_upper=limit,
            instruction=text,
        )

    def task(self, index: int, split: str) -> Task:
        """Return a goal as a task; its id is the same in every split and for every seed."""
        goal = self.goal(index)
        number, combination = self._find(index)
        wish = self._wishes[number]
        mark = f"human-{wish.number}" if wish.number >= 0 else f"options-{combination}"
        data: dict[str, Any] = {**asdict(goal), "attributes": list(goal.attributes)}
        if isinstance(goal.options, tuple):
            data["options"] = list(goal.options)
        return Task(
            task_id=f"webshop-{goal.asin}-{mark}",
            instruction=goal.instruction,
            split=split,
            data={**data, "goal_index": index},
        )

    def content_key(self, index: int) -> tuple[object, ...]:
        """Return what two goals share that ask for the same in other places of the order."""
        number, combination = self._find(index)
        wish = self._wishes[number]
        if wish.number >= 0:
            return (wish.position, wish.words)
        return (wish.position, *_combine(self._products[wish.position], combination).items())

    def sha256(self) -> str:
        """Return a hash of every goal: products, words, options, limits and order."""
        digest = hashlib.sha256()
        for wish, limit, end in zip(self._wishes, self._limits, self._ends, strict=True):
            line = [asdict(wish), self._products[wish.position].asin, limit, end]
            digest.update(json.dumps(line, sort_keys=True).encode())
        digest.update(self._order.tobytes())
        return digest.hexdigest()

    def _find(self, index: int) -> tuple[int, int]:
        """Return the wish of a goal and the number of its combination."""
        if not 0 <= index < len(self._order):
            raise DataError(
                f"webshop goal {index} is out of range: there are {len(self._order)} goals, "
                "numbered from 0"
            )
        place = self._order[index]
        number = bisect_right(self._ends, place)
        return number, place - (self._ends[number - 1] if number else 0)


class GoalTasks(Sequence[Task]):
    """The tasks of a split, made when asked for.

    Args:
        book: All goals.
        indices: The goals of the split.
        split: Its name.
    """

    def __init__(self, book: GoalBook, indices: Sequence[int], split: str) -> None:
        self._book = book
        self._indices = indices
        self._split = split

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 (an index or a slice, as in lists)
        if isinstance(place, slice):
            return GoalTasks(self._book, self._indices[place], self._split)
        return self._book.task(self._indices[place], self._split)

    def __iter__(self) -> Iterator[Task]:
        return (self._book.task(index, self._split) for index in self._indices)


def build_book(products: Sequence[Product], wishes: Sequence[Wish], rng: random.Random) -> GoalBook:
    """Draw the price limits and count the goals.

    Args:
        products: The catalogue.
        wishes: In the catalogue's order.
        rng: Where the seed's draws go on after the prices.
    """
    limits, nums = [], []
    for wish in wishes:
        product = products[wish.position]
        limits.append(_draw_limit(product.price, rng))
        values = product.options.values()
        nums.append(1 if wish.number >= 0 else math.prod(len(names) for names in values))
    return GoalBook(products, wishes, limits, nums)


def _draw_limit(price: float, rng: random.Random) -> float:
    """Return the larger of two of the first four limits above a price, as the original does."""
    choices = list(
        itertools.islice((limit for limit in _PRICE_LIMITS if limit > price), _NUM_LIMITS)
    )
    return max(rng.sample(choices, 2)) if len(choices) > 1 else _NO_LIMIT


def _combine(product: Product, number: int) -> dict[str, str]:
    """Return a combination of options by its number: kinds by name, the last one turns fastest."""
    chosen = {}
    for kind in sorted(product.options, reverse=True):
        number, place = divmod(number, len(product.options[kind]))
        chosen[kind] = product.options[kind][place]
    return dict(sorted(chosen.items()))
