"""Pytest fixtures for plugin authors and RSO itself; loaded as a pytest plugin."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

__all__ = ["find_peer", "missing", "pacs", "peer"]


def missing(name: str) -> NoReturn:
    """Skip for want of a peer, or fail where peers are required."""
    reason = f"{name} is not installed"
    if os.environ.get("RSO_REQUIRE_PEERS"):
        pytest.fail(reason)
    pytest.skip(reason)


def find_peer(program: str) -> str:
    """The path of a real peer's program; a missing one skips, or fails where peers are required."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    return shutil.which(program, path=path) or missing(program)


@pytest.fixture
def peer() -> Callable[[str], str]:
    """``find_peer``, as a fixture."""
    return find_peer


@pytest.fixture
def pacs() -> Iterator[object]:
    """A PACS on loopback that takes everything."""
    from rso.testing.pacs import Pacs  # noqa: PLC0415  (pytest loads this module always)

    made = Pacs()
    made.start()
    yield made
    made.stop()
