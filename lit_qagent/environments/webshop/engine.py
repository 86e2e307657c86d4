"""The shop itself: which page follows which click. Pure functions of a small state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.text_index import TextIndex
from lit_qagent.environments.webshop.catalog import Product

BACK = "Back to Search"
PREVIOUS = "< Prev"
NEXT = "Next >"
SUBPAGES = ("Description", "Features", "Reviews")
BUY = "Buy Now"

PageName = Literal["start", "results", "item", "subpage", "end"]


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
        found: Codes of the products found by the last search, best first.
        page_number: Page of the results, from 1.
        asin: The product opened, or empty.
        options: Option kind to the value chosen for that product.
        subpage: The sub page shown, or empty.
    """

    page: PageName = "start"
    found: tuple[str, ...] = ()
    page_number: int = 1
    asin: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    subpage: str = ""


class Shop:
    """A catalogue with its search and its pages; read-only.

    It differs from the original in two ways: ``Next >`` is there only if a next page is, and
    opening another product forgets the options chosen for the one before.

    Args:
        products: The catalogue.
        spec: What the pages show.
    """

    def __init__(self, products: Sequence[Product], spec: PageSpec) -> None:
        self._products = {product.asin: product for product in products}
        self._asins = [product.asin for product in products]
        self._page_size = spec.page_size
        self._max_results = spec.max_results
        self._subpages = SUBPAGES if spec.subpages else ()
        self._back = spec.back_buttons
        self._final_options = spec.final_options
        self._index = TextIndex([_search_text(product) for product in products])

    def product(self, asin: str) -> Product:
        """Return a product by its code."""
        return self._products[asin]

    def search(self, query: str) -> ShopState:
        """Return the first page of the products that fit the query."""
        ranking = self._index.rank(query, self._max_results)
        return ShopState(page="results", found=tuple(self._asins[position] for position in ranking))

    def num_pages(self, state: ShopState) -> int:
        """Return the number of pages of results, at least 1."""
        return max(1, -(-len(state.found) // self._page_size))

    def shown(self, state: ShopState) -> list[Product]:
        """Return the products on the current page of results."""
        first = (state.page_number - 1) * self._page_size
        return [self._products[asin] for asin in state.found[first : first + self._page_size]]

    def clickables(self, state: ShopState) -> tuple[str, ...]:
        """Return everything that can be clicked on a page, as it is written there."""
        if state.page == "results":
            return self._result_clickables(state)
        if state.page == "item":
            product = self._products[state.asin]
            values = [
                value
                for kind, values in product.options.items()
                if not (self._final_options and kind in state.options)
                for value in values
            ]
            ways_back = (PREVIOUS, BACK) if self._back else ()
            return (*dict.fromkeys(values), BUY, *self._subpages, *ways_back)
        if state.page == "subpage":
            return (PREVIOUS, BACK) if self._back else (PREVIOUS,)
        return ()

    def click(self, state: ShopState, value: str) -> ShopState | None:
        """Return the state after a click, or None if there is no such thing to click.

        Args:
            state: Where the customer is.
            value: What is clicked; case does not count.
        """
        wanted = value.strip().lower()
        names = {name.lower(): name for name in reversed(self.clickables(state))}
        name = names.get(wanted)
        if name is None:
            return None
        if name == BACK:
            return ShopState()
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

    def _click_result(self, state: ShopState, name: str) -> ShopState:
        if name == NEXT:
            return replace(state, page_number=state.page_number + 1)
        kept = state.options if name == state.asin else {}
        return replace(state, page="item", asin=name, options=kept)

    def _click_item(self, state: ShopState, name: str) -> ShopState:
        if name == BUY:
            return replace(state, page="end")
        if name in self._subpages:
            return replace(state, page="subpage", subpage=name)
        options = self._products[state.asin].options
        kind = next(kind for kind, values in options.items() if name in values)
        return replace(state, options={**state.options, kind: name})

    @staticmethod
    def _go_back(state: ShopState) -> ShopState:
        if state.page == "subpage":
            return replace(state, page="item", subpage="")
        if state.page == "item":
            return replace(state, page="results")
        return replace(state, page_number=state.page_number - 1)


def _search_text(product: Product) -> str:
    """Return the words a product is found by, as WebShop's index has them."""
    options = ", and ".join(
        f"{kind}: {', '.join(values)}" for kind, values in product.options.items()
    )
    first_bullet = product.bullets[0] if product.bullets else ""
    return " ".join([product.title, product.description, first_bullet, options])
