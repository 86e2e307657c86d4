"""The report in real headless Chromium."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from tests.browser import browser, visit
from tests.toy_players import WordScorer, make_evaluation

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.integration


def play_and_report(folder: Path) -> None:
    EpisodeShard(make_evaluation(folder)).play(WordScorer(), {"task_ids": []})
    write_report(folder)


def test_tables_plots_and_examples_are_seen_without_a_network(
    tmp_path: Path, browser: "Browser"
) -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:  # playwright keeps an event loop in this one
        pool.submit(play_and_report, tmp_path).result()

    tab, complaints, requests = visit(browser, tmp_path / "report.html")

    assert "q_guided against plain, random_of_n" in tab.locator("h1").inner_text()
    assert tab.get_by_role("cell", name="q_guided - random_of_n").first.is_visible()
    plots = tab.locator("svg").all()
    assert plots
    for plot in plots:
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 100
    link = tab.locator("a[href^='#example']").first
    target = link.get_attribute("href") or ""
    link.click()
    example = tab.locator("details", has=tab.locator(target))
    example.locator("pre.world").first.wait_for(state="visible")  # the link opens it
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
