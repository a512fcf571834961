"""Debian's Chromium, driven by Playwright, and the way in."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

from rso.testing.fixtures import find_peer

__all__ = ["chromium", "sign_in"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; a missing one skips the test, or fails it where peers are required."""
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
