"""The page in real headless Chromium."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_collection.store import TreeStore
from data_collection.viewer.view import Viewed, write_view
from lit_qagent.agents.selection import Scorer
from tests.browser import browser, sync_api, visit
from tests.data_collection.viewer.stores import (
    COMMENT,
    IMAGE,
    SCRIPT,
    Tree,
    large_tree,
    planted_tree,
    small_tree,
    write_store,
)
from tests.data_collection.viewer.test_learned import LengthScorer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.integration

__all__ = ["browser"]  # a fixture

SLOWEST_S = 30.0  # for machines with a dozen other things to do


def make_view(store: TreeStore, path: Path, scorer: Scorer | None = None) -> Viewed:
    """Write a page in a thread: playwright keeps an event loop in this one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(write_view, store, path, scorer=scorer).result()


def rows(tab: "Page", kind: str) -> "Locator":
    return tab.locator(f"#{kind}-rows .row")


def test_planted_scripts_do_not_run_and_are_shown(tmp_path: Path, browser: "Browser") -> None:
    store = write_store(tmp_path / "store", [planted_tree(), small_tree()])
    (tmp_path / "store" / "trees" / "zz<b>.jsonl").write_text("{}\n")
    make_view(store, tmp_path / f"{IMAGE[:4]}page.html", scorer=LengthScorer())
    tab, complaints, requests = visit(browser, tmp_path / f"{IMAGE[:4]}page.html")
    planted = f"{SCRIPT}{IMAGE}{COMMENT}"
    rows(tab, "task").filter(has_text="task </script>").click()
    assert f"Find {SCRIPT}{IMAGE}" in tab.locator("#tree-head .instruction").inner_text()
    assert f"broke {SCRIPT}{IMAGE}" in tab.locator("#tree-head .reason").inner_text()
    assert f"note {SCRIPT}{IMAGE}" in tab.locator("#step").inner_text()
    rows(tab, "node").nth(1).click()
    for part in ("Rollouts from here", "The chat before this step"):
        assert part in tab.locator("#step").inner_text()
    for summary in tab.locator("#step summary").all():
        summary.click()
    sync_api.expect(tab.locator("#step")).to_contain_text("Rules. ")
    shown = tab.locator("#step").text_content() or ""
    for word in ("go[", "seen ", "roll ", "rolled "):
        assert f"{word}{planted}".replace("\ud800", "\ufffd") in shown.replace("\ud800", "\ufffd")
    assert f"Rules. {SCRIPT}" in shown
    tab.fill("#search", IMAGE)
    tab.wait_for_selector("#step mark")
    assert tab.locator("#step mark").first.text_content() == IMAGE
    tab.locator("#settings summary").click()
    assert tab.evaluate("window.planted") is None
    assert tab.locator("main img, main b, main script").count() == 0
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == 1


def test_the_policy_stops_what_a_defect_would_let_in(tmp_path: Path, browser: "Browser") -> None:
    make_view(write_store(tmp_path / "store", [small_tree()]), tmp_path / "page.html")
    tab, complaints, _ = visit(browser, tmp_path / "page.html")
    with pytest.raises(sync_api.Error, match="TrustedHTML"):
        tab.evaluate("document.body.innerHTML = '<b>x</b>'")
    tab.evaluate(
        "document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))"
    )
    tab.wait_for_timeout(100)
    assert any("Content Security Policy" in text for text in complaints)


def test_list_search_tree_and_step(tmp_path: Path, browser: "Browser") -> None:
    trees = [
        small_tree("first", "Spell one."),
        small_tree("second", "Spell two."),
        Tree("third", (), None),
    ]
    (tmp_path / "pairs").mkdir()
    make_view(write_store(tmp_path / "store", trees), tmp_path / "page.html", scorer=LengthScorer())
    tab, complaints, _ = visit(browser, tmp_path / "page.html")
    assert rows(tab, "task").count() == 3
    assert tab.locator("#filters button").all_inner_texts() == [
        "part of the reward 2",
        "unfinished 1",
    ]
    tab.locator("#filters button").nth(1).click()
    assert rows(tab, "task").count() == 2
    tab.locator("#filters button").nth(1).click()
    tab.keyboard.press("/")
    tab.keyboard.type("SPELL TWO")
    sync_api.expect(rows(tab, "task")).to_have_count(1)
    tab.keyboard.press("Enter")
    tab.keyboard.press("Enter")
    assert tab.locator("#tree-head h2").inner_text().startswith("second")
    texts = [" ".join(text.split()) for text in rows(tab, "node").all_inner_texts()]
    texts = [text.replace("\u2013", "-") for text in texts]
    assert texts == [
        "▾ start 2 0.375 0.375 -",
        "▾ go[a] 2 0.375 0.375 26.000",
        "end[] 1 0.500 0.500 6.000 0.50 end",
        "nonsense 0 0.000 - 9.000 invalid",
        "go[b] 0 0.000 - 5.000",
    ]
    for key in ("ArrowDown", "ArrowDown", "ArrowDown"):
        tab.keyboard.press(key)
    assert tab.locator("#step pre").first.inner_text() == "nonsense"
    assert "no, the world could not carry it out" in tab.locator("#step").inner_text()
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    assert rows(tab, "node").count() == 3
    assert tab.locator("#step pre.agent").first.inner_text() == "Thought: go.\nAction: go[a]"
    assert tab.url.endswith("&node=1")
    tab.reload()
    assert tab.locator("#step h2").inner_text() == "Step 1, node 1"
    assert complaints == []


def test_matches_are_found_in_order(tmp_path: Path, browser: "Browser") -> None:
    make_view(write_store(tmp_path / "store", [small_tree()]), tmp_path / "page.html")
    tab, complaints, _ = visit(browser, tmp_path / "page.html")
    tab.fill("#search", "go[")
    sync_api.expect(tab.locator("#found")).to_contain_text("matching")
    assert tab.locator("#found").inner_text() == "1 of 1 task, 2 matching steps"
    rows(tab, "task").click()
    assert tab.locator("#step h2").inner_text() == "Step 1, node 1"
    tab.click("#collapse")
    tab.click("#next")
    assert tab.locator("#step h2").inner_text() == "Step 1, node 2"
    tab.click("#next")
    assert tab.locator("#step h2").inner_text() == "Step 1, node 1"
    assert complaints == []


def test_a_large_store_stays_usable(tmp_path: Path, browser: "Browser") -> None:
    trees = (large_tree(number, 200) for number in range(500))
    store = write_store(tmp_path / "store", trees)
    viewed = make_view(store, tmp_path / "page.html")
    assert viewed.num_nodes == 100_000
    assert viewed.num_bytes < 100e6
    began = time.monotonic()
    tab, complaints, _ = visit(browser, tmp_path / "page.html")
    rows(tab, "task").first.wait_for()
    seconds = {"open": time.monotonic() - began}
    began = time.monotonic()
    rows(tab, "task").nth(5).click()
    assert rows(tab, "node").count() > 10
    seconds["tree"] = time.monotonic() - began
    began = time.monotonic()
    tab.fill("#search", "page 321-150 ")
    sync_api.expect(rows(tab, "task")).to_have_count(1)
    seconds["search"] = time.monotonic() - began
    rows(tab, "task").click()
    assert tab.locator("#step h2").inner_text().endswith("node 150")
    began = time.monotonic()
    tab.fill("#search", "lorem")
    sync_api.expect(tab.locator("#found")).to_contain_text("99,500")
    seconds["search for what is everywhere"] = time.monotonic() - began
    # Only rows in view are elements.
    assert tab.evaluate("document.querySelectorAll('*').length") < 1500
    assert complaints == []
    assert max(seconds.values()) < SLOWEST_S, seconds
