"""Pages as text: a compact form for small models, and WebShop's own text form."""

from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.engine import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    SUBPAGES,
    Shop,
    ShopState,
)

_SEPARATOR = " [SEP] "
_NO_REVIEWS = "No reviews yet."


def render_page(shop: Shop, state: ShopState, instruction: str, style: str) -> str:
    """Return the page that a customer sees.

    Args:
        shop: The shop.
        state: Where the customer is.
        instruction: What the customer was asked for; ``text`` repeats it on every page,
            ``compact`` leaves it to the first observation.
        style: ``compact`` or ``text``, see `PageSpec`.
    """
    if style == "compact":
        return _compact(shop, state)
    return _SEPARATOR.join(_text(shop, state, instruction))


def render_subpage(product: Product, subpage: str) -> str:
    """Return what a sub page says."""
    if subpage == "Description":
        return product.description
    return " ".join(product.bullets) if subpage == "Features" else _NO_REVIEWS


def _compact(shop: Shop, state: ShopState) -> str:
    if state.page == "start":
        return "Search page."
    if state.page == "results":
        return _compact_results(shop, state)
    if state.page == "end":
        return "Order placed."
    product = shop.product(state.position)
    if state.page == "subpage":
        return render_subpage(product, state.subpage)
    lines = [f"{product.title}, {product.price_tag}"]
    for kind, values in product.options.items():
        chosen = state.options.get(kind)
        marked = (f"{value} (chosen)" if value == chosen else value for value in values)
        lines.append(f"{kind}: {', '.join(marked)}")
    return "\n".join(lines)


def _compact_results(shop: Shop, state: ShopState) -> str:
    lines = [
        f"[{product.asin}] {product.title}, {product.price_tag}" for product in shop.shown(state)
    ]
    if not lines:
        return "No products found."
    num_pages = shop.num_pages(state)
    if num_pages > 1:
        lines.insert(0, f"Page {state.page_number} of {num_pages}")
    return "\n".join(lines)


def _text(shop: Shop, state: ShopState, instruction: str) -> list[str]:
    if state.page == "start":
        return ["WebShop", "Instruction:", instruction, "Search"]
    if state.page == "end":
        return ["Thank you for shopping with us!"]
    shown = set(shop.clickables(state))
    lead = ["Instruction:", instruction, *(name for name in (BACK,) if name in shown)]
    if state.page == "results":
        return lead + _text_results(shop, state)
    product = shop.product(state.position)
    if state.page == "subpage":
        return [*lead, PREVIOUS, render_subpage(product, state.subpage)]
    parts = [*lead, *(name for name in (PREVIOUS,) if name in shown)]
    for kind, values in product.options.items():
        parts += [kind, *values]
    subpages = [name for name in SUBPAGES if name in shown]
    return [*parts, product.title, f"Price: {product.price_tag}", "Rating: N.A.", *subpages, BUY]


def _text_results(shop: Shop, state: ShopState) -> list[str]:
    clickables = shop.clickables(state)
    parts = [f"Page {state.page_number} (Total results: {len(state.found)})"]
    parts += [button for button in (PREVIOUS, NEXT) if button in clickables]
    for product in shop.shown(state):
        parts += [product.asin, product.title, product.price_tag]
    return parts
