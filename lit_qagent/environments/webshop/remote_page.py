"""Reads the pages of an original shop server: what is shown, and what can be clicked."""

import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal, NamedTuple

from lit_qagent.core.errors import EnvironmentFailure

SCORE_LABEL = "Your score (min 0.0, max 1.0)"
_INSTRUCTION = "Instruction:"
_HIDDEN = frozenset({"head", "script", "style", "template", "title"})
# Elements without an end tag.
_EMPTY = frozenset({"br", "hr", "img", "input", "link", "meta"})
_SEPARATOR = " [SEP] "
_NUM_DETAILED = 3  # the bracket form shows title and price of so many products

PartKind = Literal["text", "button", "product", "option"]


class Part(NamedTuple):
    """A piece of text on a page.

    Attributes:
        kind: ``text`` says something; the others can be clicked.
        text: As shown, ends stripped.
        option_kind: What an option chooses, such as ``color``; else empty.
    """

    kind: PartKind
    text: str
    option_kind: str = ""


@dataclass(frozen=True, kw_only=True)
class RemotePage:
    """One page of the server.

    Attributes:
        parts: All visible texts, in order.
    """

    parts: tuple[Part, ...]

    @property
    def instruction(self) -> str:
        """What the customer is asked for, or an empty text if the page does not say."""
        texts = [part.text for part in self.parts]
        if _INSTRUCTION in texts[:-1]:
            return texts[texts.index(_INSTRUCTION) + 1]
        return next((t.removeprefix(_INSTRUCTION).strip() for t in texts if _INSTRUCTION in t), "")

    def clickables(self) -> tuple[Part, ...]:
        """Return everything that can be clicked, each text once."""
        named = {part.text.lower(): part for part in reversed(self.parts) if part.kind != "text"}
        return tuple(part for part in self.parts if named.get(part.text.lower()) is part)

    def reward(self) -> float:
        """Return the score that the last page shows.

        Raises:
            EnvironmentFailure: The page has no score, or none in [0, 1].
        """
        texts = [part.text for part in self.parts]
        place = next((i for i, text in enumerate(texts) if SCORE_LABEL in text), -1)
        shown = texts[place][len(SCORE_LABEL) :] or " ".join(texts[place + 1 : place + 2])
        match = re.search(r"[-+.\w]+", shown) if place >= 0 else None
        try:
            score = float(match.group()) if match else math.nan
        except ValueError:
            score = math.nan
        if not 0 <= score <= 1:
            raise EnvironmentFailure(
                f"the shop server's last page shows no score in [0, 1] after {SCORE_LABEL!r} but "
                f"{shown[:80]!r}; is it an original WebShop server?"
            )
        return score

    def as_text(self) -> str:
        """Return the page in WebShop's text form."""
        return _SEPARATOR.join(part.text for part in self.parts)

    def as_brackets(self, chosen: frozenset[str], *, with_instruction: bool) -> str:
        """Return the page in the form that ReAct and its followers show.

        Args:
            chosen: Option values chosen, in double brackets.
            with_instruction: Show the instruction; only the start page does.
        """
        pieces: list[str] = []
        num_products = 0
        skipped = set() if with_instruction else {_INSTRUCTION, self.instruction}
        for part in self.parts:
            num_products += part.kind == "product"
            if part.kind == "option":
                marked = f"[[{part.text}]]" if part.text in chosen else f"[{part.text}]"
                pieces.append(marked)
            elif part.kind in ("button", "product"):
                pieces.append(f"\n[{part.text}] ")
            elif part.text not in skipped and num_products <= _NUM_DETAILED:
                pieces.append(f"\n{part.text} ")
        return "".join(pieces)


def parse_page(html: str) -> RemotePage:
    """Return what a page shows; any text gives a page."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return RemotePage(parts=tuple(reader.parts))


class _Reader(HTMLParser):
    """Collects the visible texts with what they stand in."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[Part] = []
        self._open: list[tuple[str, bool]] = []  # tag, and whether it is a link to a product
        self._last_text = ""
        self._radio_name = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "input":
            self._radio_name = (values.get("name") or "") if values.get("type") == "radio" else ""
        if tag not in _EMPTY:
            classes = (values.get("class") or "").split()
            self._open.append((tag, "product-link" in classes))

    def handle_endtag(self, tag: str) -> None:
        tags = [opened for opened, _ in self._open]
        if tag in tags:
            place = len(tags) - 1 - tags[::-1].index(tag)
            del self._open[place:]

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if not text or any(tag in _HIDDEN for tag, _ in self._open):
            return
        tags = {tag for tag, _ in self._open}
        if "button" in tags:
            self.parts.append(Part("button", text))
        elif any(is_product for _, is_product in self._open):
            self.parts.append(Part("product", text))
        elif "label" in tags:
            self.parts.append(Part("option", text, self._radio_name or self._last_text))
        else:
            self._last_text = text
            self.parts.append(Part("text", text))
