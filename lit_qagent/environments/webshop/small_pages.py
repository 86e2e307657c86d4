"""Short pages of the original's shop, for models too small for long ones.

Search, products, prices, options and rewards stay what they are. What differs: products are
numbered on a page of results, titles are cut there, some buttons are missing, and a page that was
shown already is not written again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.engine import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    SUBPAGES,
    PageSpec,
    Search,
    Shop,
    ShopState,
    fold_label,
)
from lit_qagent.environments.webshop.original import make_label
from lit_qagent.environments.webshop.pages import render_subpage
from lit_qagent.environments.webshop.queries import list_queries, whole_query


@dataclass(frozen=True, kw_only=True)
class SmallPages:
    """What short pages show and offer.

    Attributes:
        page_size: Products on a page of results; the original's is 10.
        title_chars: Characters of a title on a page of results; with back buttons the item's page
            shows all of it.
        subpages: Offer Description, Features and Reviews.
        back_buttons: Offer Back to Search and < Prev.
        next_button: Offer Next > where a next page is.
        final_options: Once a value is chosen, do not offer the other values of its kind.
        whole_query: With listed queries, offer the whole instruction as a query, too.
    """

    page_size: int = 5
    title_chars: int = 60
    subpages: bool = False
    back_buttons: bool = False
    next_button: bool = True
    final_options: bool = False
    whole_query: bool = True

    def __post_init__(self) -> None:
        for name in ("page_size", "title_chars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"small.{name} must be >= 1, got {getattr(self, name)}")

    def queries(self, instruction: str) -> tuple[str, ...]:
        """Return the queries that the search page lists."""
        short = list_queries(instruction)
        return (whole_query(instruction), *short) if self.whole_query else short


class SmallShop(Shop):
    """A shop with short pages; products are clicked by their number on the page."""

    def __init__(
        self, products: Sequence[Product], spec: SmallPages, search: Search | None = None
    ) -> None:
        pages = PageSpec(
            page_size=spec.page_size, subpages=spec.subpages, back_buttons=spec.back_buttons
        )
        super().__init__(products, pages, search)
        self.spec = spec

    def render(self, state: ShopState) -> str:
        """Return the page that a customer sees."""
        if state.page == "results":
            return self._render_results(state)
        if state.page == "item":
            return self._render_item(state)
        if state.page == "subpage":
            return render_subpage(self.product(state.position), state.subpage)
        return "Search page." if state.page == "start" else "Order placed."

    def labels(self, state: ShopState) -> dict[str, str]:
        """Return the number of each product on a page of results, by its asin."""
        return {product.asin: str(place) for place, product in enumerate(self.shown(state), 1)}

    def _result_clickables(self, state: ShopState) -> tuple[str, ...]:
        following = self.spec.next_button and state.page_number < self.num_pages(state)
        previous = self.spec.back_buttons and state.page_number > 1
        back = self.spec.back_buttons or not state.found
        return (
            *self.labels(state).values(),
            *((NEXT,) if following else ()),
            *((PREVIOUS,) if previous else ()),
            *((BACK,) if back else ()),
        )

    def _item_clickables(self, state: ShopState) -> tuple[str, ...]:
        subpages = SUBPAGES if self.spec.subpages else ()
        buttons = (BUY, *subpages, *((PREVIOUS, BACK) if self.spec.back_buttons else ()))
        taken = {fold_label(name) for name in buttons}
        names: dict[str, str] = {}
        for _, value in self._open_values(state):
            label = make_label(value)
            if label and fold_label(label) not in taken:
                names.setdefault(fold_label(label), label)
        return (*names.values(), *buttons)

    def _click_result(self, state: ShopState, name: str) -> ShopState:
        if name == NEXT:
            return super()._click_result(state, name)
        asin = self.shown(state)[int(name) - 1].asin
        return super()._click_result(state, asin)

    def _click_item(self, state: ShopState, name: str) -> ShopState:
        wanted = fold_label(name)
        for kind, value in self._open_values(state):
            if fold_label(make_label(value)) == wanted:
                return replace(state, options={**state.options, kind: value})
        return super()._click_item(state, name)

    def _open_values(self, state: ShopState) -> list[tuple[str, str]]:
        """Return each kind and value that can be chosen, in the product's order."""
        return [
            (kind, value)
            for kind, values in self.product(state.position).options.items()
            if not (self.spec.final_options and kind in state.options)
            for value in values
        ]

    def _render_results(self, state: ShopState) -> str:
        lines = [
            f"{place}. {cut_title(product.title, self.spec.title_chars)}, {product.price_tag}"
            for place, product in enumerate(self.shown(state), start=1)
        ]
        return "\n".join(lines) or "No products found."

    def _render_item(self, state: ShopState) -> str:
        product = self.product(state.position)
        kinds = product.options.items()
        if state.options:
            # Its values stand further up in the chat.
            chosen = [f"{kind}: {make_label(value)}" for kind, value in state.options.items()]
            missing = [kind for kind, _ in kinds if kind not in state.options]
            left = f" Not chosen: {', '.join(missing)}." if missing else ""
            return f"Chosen {', '.join(chosen)}.{left}"
        # Without a way back the title was read on the page of results.
        lines = [f"{product.title}, {product.price_tag}"] if self.spec.back_buttons else []
        lines += [f"{kind}: {', '.join(map(make_label, values))}" for kind, values in kinds]
        return "\n".join(lines) or "It has no options."


def cut_title(title: str, length: int) -> str:
    """Return the words of a title that fit, at least the first; dots say that some are missing.

    Examples:
        >>> cut_title("Wall Art for Living Room", 14)
        'Wall Art for...'
    """
    if len(title) <= length:
        return title
    kept = title[: length + 1].rsplit(maxsplit=1)[0][:length] if " " in title[: length + 1] else ""
    return f"{kept or title[:length]}..."
