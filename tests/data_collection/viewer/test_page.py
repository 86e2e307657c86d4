import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_collection.viewer.page import data_text, make_page, write_page
from lit_qagent.core.errors import StoreError
from tests.data_collection.viewer.stores import COMMENT, IMAGE, SCRIPT


class Elements(HTMLParser):
    """Collects the elements of a page and the text of its scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.names: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.append(dict(attrs))
        self.texts.append("")
        self.is_inside = True

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.texts[-1] += data


def parsed(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    return elements


def make(text: str) -> str:
    return make_page({"strings": [text], "trees": []}, title=text.replace("\ud800", "?"))


# Half letters too, which JSON of other programs may hold.
any_text = st.text(st.characters(categories=None, exclude_categories=()), max_size=40)


@given(any_text)
def test_any_text_reads_back_and_holds_nothing_that_ends_the_element(text: str) -> None:
    found = data_text({"strings": [text]})
    assert json.loads(found) == {"strings": [text]}
    assert not set("<>&\u2028\u2029") & set(found)
    found.encode()


@pytest.mark.parametrize("text", ["plain", SCRIPT, IMAGE, COMMENT, "<!--<script>", "]]>"])
def test_texts_add_no_element(text: str) -> None:
    assert parsed(make(text)).names == parsed(make("plain")).names


def test_the_policy_allows_the_own_script_and_style_only() -> None:
    page = make("a")
    elements = parsed(page)
    policy = next(each["content"] for each in elements.attributes if "http-equiv" in each) or ""
    assert policy.startswith("default-src 'none'; ")
    for name in ("script", "style"):
        position = len(elements.names) - 1 - elements.names[::-1].index(name)
        digest = hashlib.sha256(elements.texts[position].encode()).digest()
        assert f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "unsafe" not in policy


def test_the_page_names_no_address_and_makes_no_markup_of_texts() -> None:
    page = make("a")
    assert not re.search(
        r"https?:|//[a-z]|innerHTML|outerHTML|insertAdjacent|document\.write", page
    )
    assert not re.search(r"\beval\b|new Function|fetch\(|XMLHttp|import\(", page)


def test_only_an_older_page_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    assert write_page(path, make("a")) == path.stat().st_size
    write_page(path, make("b"))
    assert '"b"' in path.read_text()
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    other = tmp_path / "notes.html"
    other.write_text("mine")
    with pytest.raises(StoreError, match=r"notes\.html is there and is no page of this command"):
        write_page(other, make("a"))
    assert other.read_text() == "mine"
    with pytest.raises(StoreError, match="cannot be written"):
        write_page(other / "page.html", make("a"))
