"""The shop's pages and buttons exactly as WebShop's own text environment has them."""

from collections.abc import Mapping
from dataclasses import replace

from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.engine import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    SUBPAGES,
    Shop,
    ShopState,
    fold_label,
)

_MAX_LABEL_CHARS = 300


class OriginalShop(Shop):
    """A shop that does what the original's code does, its oddities included.

    ``Next >`` is on every page of results, behind the last one too; options stay chosen when
    another product is opened, until the next search; a value that two kinds of options have is
    chosen for the last of them.
    """

    def _result_clickables(self, state: ShopState) -> tuple[str, ...]:
        previous = (PREVIOUS,) if state.page_number > 1 else ()
        return (BACK, *previous, NEXT, *(product.asin for product in self.shown(state)))

    def _item_clickables(self, state: ShopState) -> tuple[str, ...]:
        buttons = (BACK, PREVIOUS, *SUBPAGES, BUY)
        names = {fold_label(name): name for name in buttons}
        for values in self.product(state.position).options.values():
            for value in values:
                label = make_label(value)
                if label:
                    names.setdefault(fold_label(label), label)
        return tuple(names.values())

    def clickables(self, state: ShopState) -> tuple[str, ...]:
        """Return everything that can be clicked on a page, in the original's order."""
        return (BACK, PREVIOUS) if state.page == "subpage" else super().clickables(state)

    def _options_kept(self, state: ShopState, position: int) -> Mapping[str, str]:
        return state.options

    def _click_result(self, state: ShopState, name: str) -> ShopState:
        following = super()._click_result(state, name)
        if following.page != "item":
            return following
        visited = tuple(dict.fromkeys((*state.visited, following.position)))
        return replace(following, visited=visited)

    def _start_again(self, state: ShopState) -> ShopState:
        return ShopState(visited=state.visited)

    def _find_value(self, product: Product, name: str) -> tuple[str, str]:
        wanted = fold_label(name)
        return next(
            (kind, value)
            for kind, values in reversed(list(product.options.items()))
            for value in values
            if fold_label(make_label(value)) == wanted
        )


def make_label(value: str) -> str:
    """Return an option value as it is written on a page: one line, not too long."""
    label = " ".join(value.split())
    return label if len(label) <= _MAX_LABEL_CHARS else label[: _MAX_LABEL_CHARS - 3] + "..."
