"""A running RSO for tests from outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rso.testing.pacs import Pacs
from rso.testing.site import Site


@pytest.fixture
def site(tmp_path: Path, pacs: Pacs) -> Iterator[Site]:
    """A running RSO whose destinations are the ``pacs`` fixture."""
    made = Site(tmp_path, pacs.port)
    made.start()
    yield made
    assert made.stop() == 0
