"""Pytest fixtures for plugin authors and RSO itself; loaded as a pytest plugin."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

__all__ = ["find_peer", "missing", "pacs", "peer", "site"]


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


@pytest.fixture
def site(tmp_path: Path, pacs: Any) -> Iterator[object]:
    """A running RSO whose destinations are the ``pacs`` fixture."""
    from rso.testing.site import Site  # noqa: PLC0415

    made = Site(tmp_path, pacs.port)
    made.start()
    yield made
    assert made.stop() == 0
