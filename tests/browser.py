"""A real headless Chromium, without a network, and what it complains of."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FLAGS = (
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Visit(NamedTuple):
    """A page in a tab, what the console said, and what was asked of the network."""

    tab: "Page"
    complaints: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield started
        started.close()


def visit(browser: "Browser", path: Path) -> Visit:
    context = browser.new_context(offline=True, viewport={"width": 1500, "height": 900})
    found = Visit(context.new_page(), [], [])
    found.tab.on("console", lambda message: found.complaints.append(message.text))
    found.tab.on("pageerror", lambda error: found.complaints.append(str(error)))
    context.on("request", lambda request: found.requests.append(request.url))
    found.tab.goto(path.as_uri())
    return found
