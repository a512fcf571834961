"""Pytest fixtures for plugin authors and RSO itself; loaded as a pytest plugin."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

__all__ = ["missing", "pacs", "peer"]


def missing(name: str) -> NoReturn:
    """Skip for want of a peer, or fail where peers are required."""
    reason = f"{name} is not installed"
    if os.environ.get("RSO_REQUIRE_PEERS"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def peer() -> Callable[[str], str]:
    """The path of a real peer's program; a missing one skips, or fails where peers are required."""

    def find(program: str) -> str:
        path = os.environ.get("PATH", "") + ":/usr/sbin"
        return shutil.which(program, path=path) or missing(program)

    return find


@pytest.fixture
def pacs() -> Iterator[object]:
    """A PACS on loopback that takes everything."""
    from rso.testing.pacs import Pacs  # noqa: PLC0415  (pytest loads this module always)

    made = Pacs()
    made.start()
    yield made
    made.stop()
