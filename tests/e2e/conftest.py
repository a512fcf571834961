"""A running RSO for tests from outside."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from rso.testing.browser import chromium, sign_in
from rso.testing.pacs import Pacs
from rso.testing.site import Site


@pytest.fixture
def site(tmp_path: Path, pacs: Pacs) -> Iterator[Site]:
    """A running RSO whose destinations are the ``pacs`` fixture."""
    made = Site(tmp_path, pacs.port)
    made.start()
    yield made
    assert made.stop() == 0


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
