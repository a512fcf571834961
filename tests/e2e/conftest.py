"""A running RSO for tests from outside."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from rso.testing.browser import chromium, sign_in
from rso.testing.site import Site

AXE = (Path(__file__).parents[1] / "vendor" / "axe-core-4.10.3.min.js").read_text("utf-8")
# Colours alone for what was looked at whole in the other scheme.
WHOLE = "{resultTypes: ['violations']}"
COLOURS = "{resultTypes: ['violations'], runOnly: ['color-contrast', 'link-in-text-block']}"


@pytest.fixture(scope="session")
def problems_of() -> Callable[..., list[str]]:
    """What axe calls serious or critical in a page; with ``colours``, in its colours."""

    def look(page: Page, *, colours: bool = False) -> list[str]:
        if not page.evaluate("'axe' in window"):
            page.evaluate(AXE)
        found = page.evaluate(f"axe.run({COLOURS if colours else WHOLE})")["violations"]
        return [
            f"{problem['id']} {problem['nodes'][0]['html']}"
            for problem in found
            if problem["impact"] in {"serious", "critical"}
        ]

    return look


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser of the test's own."""
    with chromium() as made:
        yield made


@pytest.fixture
def visit(browser: Browser, site: Site) -> Callable[..., Page]:
    """A page of a person who has signed in; any error of a script fails the test."""

    def open_page(email: str = "tech@example.org", password: str = "a good password") -> Page:
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
        sign_in(page, f"http://127.0.0.1:{site.web}", email, password)
        return page

    return open_page
