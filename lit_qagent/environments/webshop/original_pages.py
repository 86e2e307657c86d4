"""Pages as WebShop's text environment writes them, in its two forms.

``text`` joins the visible texts by ``[SEP]`` and equals recorded episodes of the original.
``text_rich`` has a line per text and marks what can be clicked and what was.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

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
from lit_qagent.environments.webshop.original import make_label

MAX_TEXT_CHARS = 20_000
_SEPARATOR = " [SEP] "


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One visible text of a page.

    Attributes:
        text: The text.
        kind: What it is: plain, or something to click.
        clicked: It was clicked before.
    """

    text: str
    kind: Literal["plain", "button", "option", "product"] = "plain"
    clicked: bool = False


def render_original(
    shop: Shop, state: ShopState, instruction: str, style: str, reward: float
) -> str:
    """Return the page that a customer sees.

    Args:
        shop: The shop.
        state: Where the customer is.
        instruction: What the customer was asked for.
        style: ``text`` or ``text_rich``.
        reward: What was earned; shown on the last page.
    """
    written = _PAGES[state.page](shop, state, instruction, reward)
    parts = [replace(part, text=shorten(part.text)) for part in written]
    parts = [part for part in parts if part.text not in ("", "\n")]
    if style == "text_rich":
        return _render_rich(parts)
    return _SEPARATOR.join(part.text.strip() for part in parts)


def shorten(text: str) -> str:
    """Return a text that fits on a page; what is missing is said."""
    surplus = len(text) - MAX_TEXT_CHARS
    if surplus <= 0:
        return text
    return f"{text[:MAX_TEXT_CHARS]} [{surplus} more characters are not shown]"


def _render_rich(parts: Iterable[Part]) -> str:
    notes, lines = "", ""
    for part in parts:
        text = part.text
        if part.kind != "plain":
            button = f"[clicked button] {text} [clicked button_]"
            text = button if part.clicked else f"[button] {text} [button_]"
        if part.kind == "option":
            text = f"  {text}"
            if part.clicked:
                notes = f"You have clicked {part.text}.\n{notes}"
        if part.kind == "product":
            text = f"\n{text}"
        lines += f"{text}\n"
    return notes + lines


def _start(shop: Shop, state: ShopState, instruction: str, reward: float) -> list[Part]:
    texts = ["WebShop", "Instruction:", instruction]
    return [*map(_plain, texts), _button("Search")]


def _results(shop: Shop, state: ShopState, instruction: str, reward: float) -> list[Part]:
    count = _plain(f"Page {state.page_number} (Total results: {len(state.found)})")
    previous = [_button(PREVIOUS)] if state.page_number > 1 else []
    parts = [*_lead(instruction), count, *previous, _button(NEXT)]
    for position in shop.shown_positions(state):
        product = shop.product(position)
        parts += [
            Part(text=product.asin, kind="product", clicked=position in state.visited),
            _plain(product.title),
            _plain(price_tag(product)),
        ]
    return parts


def _item(shop: Shop, state: ShopState, instruction: str, reward: float) -> list[Part]:
    product = shop.product(state.position)
    parts = [*_lead(instruction), _button(PREVIOUS)]
    for kind, values in product.options.items():
        parts.append(_plain(kind))
        for value in values:
            clicked = state.options.get(kind) == value
            parts.append(Part(text=make_label(value), kind="option", clicked=clicked))
    texts = [product.title, f"Price: {price_tag(product)}", "Rating: N.A."]
    return [*parts, *map(_plain, texts), *map(_button, (*SUBPAGES, BUY))]


def _subpage(shop: Shop, state: ShopState, instruction: str, reward: float) -> list[Part]:
    product = shop.product(state.position)
    texts: tuple[str, ...] = ()
    if state.subpage == "Description":
        texts = (product.description,)
    elif state.subpage == "Features":
        texts = product.bullets
    return [*_lead(instruction), _button(PREVIOUS), *map(_plain, texts)]


def _end(shop: Shop, state: ShopState, instruction: str, reward: float) -> list[Part]:
    bought = shop.product(state.position).asin
    options = json.dumps(state.options, sort_keys=True)
    texts = ["Thank you for shopping with us!", "Your code:", "None"]
    texts += ["(Paste it in your MTurk interface.)", "Purchased", "asin", bought]
    texts += ["options", options, "attrs", "None", "category", "None", "query", "None"]
    texts += ["product category", "None", "Target", "asin", "options", "attrs", "price upper"]
    texts += ["instuction text", "category", "product category", "query", "Goal", "None"]
    texts += ["Reward", "Your score (min 0.0, max 1.0)", str(reward), "Reward Details", "None"]
    return [_plain(text) for text in texts]


_PAGES: dict[str, Callable[[Shop, ShopState, str, float], list[Part]]] = {
    "start": _start,
    "results": _results,
    "item": _item,
    "subpage": _subpage,
    "end": _end,
}


def _lead(instruction: str) -> list[Part]:
    return [_plain("Instruction:"), _plain(instruction), _button(BACK)]


def _plain(text: str) -> Part:
    return Part(text=text)


def _button(text: str) -> Part:
    return Part(text=text, kind="button")


def price_tag(product: Product) -> str:
    """Return the price as the original writes it: one price, or the first two."""
    return " to ".join(f"${price}" for price in product.prices[:2])
