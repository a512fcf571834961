"""Debian's Chromium, driven by Playwright, and the way in."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from rso.testing.fixtures import find_peer

__all__ = ["chromium", "sign_in", "wait_held"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; a missing one skips the test, or fails it where peers are required."""
    # A machine that runs other tests beside this one draws a page late.
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=find_peer("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield made
        finally:
            made.close()


def sign_in(page: Page, base: str, email: str, password: str) -> None:
    """Sign in as anybody would, up to the list of exams."""
    page.goto(f"{base}/sign-in")
    page.fill("[name=email]", email)
    page.fill("[name=password]", password)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{base}/")


def wait_held(page: Page, held: list[Route], timeout: float = 10) -> Route:
    """The first request that a handler of `page.route` kept; it comes later than what it draws.

    Args:
        page: the page whose requests are held.
        held: where the handler puts them.
        timeout: seconds.

    Raises:
        TimeoutError: no request came.
    """
    until = time.monotonic() + timeout
    while not held:
        if time.monotonic() > until:
            raise TimeoutError(f"no request was held within {timeout:g} s")
        page.wait_for_timeout(20)
    return held[0]
