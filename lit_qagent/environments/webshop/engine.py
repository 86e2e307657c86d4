"""The shop itself: which page follows which click. Pure functions of a small state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.text_index import TextIndex
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.lucene import search_text

BACK = "Back to Search"
PREVIOUS = "< Prev"
NEXT = "Next >"
SUBPAGES = ("Description", "Features", "Reviews")
BUY = "Buy Now"

PageName = Literal["start", "results", "item", "subpage", "end"]


class Search(Protocol):
    """What finds products: positions in the catalogue, best first."""

    def rank(self, query: str, limit: int, /) -> list[int]:
        """Return at most ``limit`` positions."""


@dataclass(frozen=True, kw_only=True)
class PageSpec:
    """What the shop's pages show and offer.

    Attributes:
        page_size: Products on a page of results.
        max_results: Most products a search finds.
        observation: ``compact``: short pages that do not repeat the instruction. ``text``:
            WebShop's text form, parts joined by ``[SEP]``.
        search: ``open``: the model writes its queries. ``listed``: the search page offers up to
            three queries made from the instruction's words.
        subpages: Offer Description, Features and Reviews, and let goals ask for attributes that
            only they show.
        back_buttons: Offer Back to Search, and < Prev beside it. Without them a product once
            opened is the one that can be bought, which makes episodes short for small models.
        final_options: Once a value is chosen, do not offer the other values of its kind, so that
            small models do not click to and fro.
    """

    page_size: int = 10
    max_results: int = 50
    observation: Literal["compact", "text"] = "compact"
    search: Literal["open", "listed"] = "open"
    subpages: bool = True
    back_buttons: bool = True
    final_options: bool = False

    def __post_init__(self) -> None:
        for name in ("page_size", "max_results"):
            if getattr(self, name) < 1:
                raise ConfigError(f"pages.{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShopState:
    """Where one customer is.

    Attributes:
        page: The page shown.
        found: Positions of the products found by the last search, best first.
        page_number: Page of the results, from 1.
        position: The product opened, or -1.
        options: Option kind to the value chosen.
        subpage: The sub page shown, or empty.
        visited: Products opened so far, for pages that mark them.
    """

    page: PageName = "start"
    found: tuple[int, ...] = ()
    page_number: int = 1
    position: int = -1
    options: Mapping[str, str] = field(default_factory=dict)
    subpage: str = ""
    visited: tuple[int, ...] = ()


_START = ShopState()


class Shop:
    """A catalogue with its search and its pages; read-only.

    It differs from the original (see `OriginalShop`) in two ways: ``Next >`` is there only if a
    next page is, and opening another product forgets the options chosen for the one before.

    Args:
        products: The catalogue; never copied, so that it may be larger than the memory.
        spec: What the pages show.
        search: What finds products; by default an index of their texts is built.
    """

    def __init__(
        self, products: Sequence[Product], spec: PageSpec, search: Search | None = None
    ) -> None:
        self._products = products
        self._page_size = spec.page_size
        self._max_results = spec.max_results
        self._subpages = SUBPAGES if spec.subpages else ()
        self._back = spec.back_buttons
        self._final_options = spec.final_options
        self._index = search or TextIndex([search_text(product) for product in products])

    def product(self, position: int) -> Product:
        """Return a product by its place in the catalogue."""
        return self._products[position]

    def search(self, query: str, state: ShopState = _START) -> ShopState:
        """Return the first page of the products that fit the query.

        Args:
            query: Words.
            state: Where the customer is.
        """
        found = tuple(self._index.rank(query, self._max_results))
        return replace(self._start_again(state), page="results", found=found)

    def num_pages(self, state: ShopState) -> int:
        """Return the number of pages of results, at least 1."""
        return max(1, -(-len(state.found) // self._page_size))

    def shown_positions(self, state: ShopState) -> tuple[int, ...]:
        """Return the places of the products on the current page of results."""
        first = (state.page_number - 1) * self._page_size
        return state.found[first : first + self._page_size]

    def shown(self, state: ShopState) -> list[Product]:
        """Return the products on the current page of results."""
        return [self._products[position] for position in self.shown_positions(state)]

    def labels(self, state: ShopState) -> dict[str, str]:
        """Return what is clicked to open each product on a page of results, by its asin."""
        return {product.asin: product.asin for product in self.shown(state)}

    def clickables(self, state: ShopState) -> tuple[str, ...]:
        """Return everything that can be clicked on a page, as it is written there."""
        if state.page == "results":
            return self._result_clickables(state)
        if state.page == "item":
            return self._item_clickables(state)
        if state.page == "subpage":
            return (PREVIOUS, BACK) if self._back else (PREVIOUS,)
        return ()

    def click(self, state: ShopState, value: str) -> ShopState | None:
        """Return the state after a click, or None if there is no such thing to click.

        Args:
            state: Where the customer is.
            value: What is clicked; case does not count.
        """
        wanted = fold_label(value)
        names = {fold_label(name): name for name in reversed(self.clickables(state))}
        name = names.get(wanted)
        if name is None:
            return None
        if name == BACK:
            return self._start_again(state)
        if name == PREVIOUS:
            return self._go_back(state)
        if state.page == "results":
            return self._click_result(state, name)
        return self._click_item(state, name)

    def _result_clickables(self, state: ShopState) -> tuple[str, ...]:
        previous = (PREVIOUS,) if state.page_number > 1 else ()
        following = (NEXT,) if state.page_number < self.num_pages(state) else ()
        asins = (product.asin for product in self.shown(state))
        # Without a single hit, going back is the only way on.
        back = (BACK,) if self._back or not state.found else ()
        return (*asins, *previous, *following, *back)

    def _item_clickables(self, state: ShopState) -> tuple[str, ...]:
        values = [
            value
            for kind, values in self._products[state.position].options.items()
            if not (self._final_options and kind in state.options)
            for value in values
        ]
        ways_back = (PREVIOUS, BACK) if self._back else ()
        return (*dict.fromkeys(values), BUY, *self._subpages, *ways_back)

    def _click_result(self, state: ShopState, name: str) -> ShopState:
        if name == NEXT:
            return replace(state, page_number=state.page_number + 1)
        shown = self.shown_positions(state)
        position = next(place for place in shown if self._products[place].asin == name)
        kept = self._options_kept(state, position)
        return replace(state, page="item", position=position, options=kept)

    def _click_item(self, state: ShopState, name: str) -> ShopState:
        if name == BUY:
            return replace(state, page="end")
        if name in self._subpages:
            return replace(state, page="subpage", subpage=name)
        kind, value = self._find_value(self._products[state.position], name)
        return replace(state, options={**state.options, kind: value})

    def _options_kept(self, state: ShopState, position: int) -> Mapping[str, str]:
        """Return the options that stay chosen when a product is opened."""
        return state.options if position == state.position else {}

    def _find_value(self, product: Product, name: str) -> tuple[str, str]:
        """Return the kind and the value that a clickable stands for."""
        kind = next(kind for kind, values in product.options.items() if name in values)
        return kind, name

    def _start_again(self, state: ShopState) -> ShopState:
        return _START

    @staticmethod
    def _go_back(state: ShopState) -> ShopState:
        if state.page == "subpage":
            return replace(state, page="item", subpage="")
        if state.page == "item":
            return replace(state, page="results")
        return replace(state, page_number=state.page_number - 1)


def fold_label(text: str) -> str:
    """Return the form in which clicks are compared: lower case, white space folded."""
    return " ".join(text.lower().split())
