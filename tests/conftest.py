"""Fixtures of RSO's own tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pydicom
import pytest

from rso.ledger import Ledger
from rso.testing.fixtures import missing
from rso.testing.postgres import find_postgres, running_postgres


@pytest.fixture(scope="session")
def samples() -> Path:
    """The sample files inside pydicom's package."""
    return Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of its own in a temporary folder, reached by a socket."""
    binaries = find_postgres()
    if binaries is None:
        missing("PostgreSQL")
    with running_postgres(binaries) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """An empty ledger on either engine."""
    if request.param == "sqlite":
        made = await Ledger.open(f"sqlite:{tmp_path / 'ledger.sqlite'}")
    else:
        made = await Ledger.open(request.getfixturevalue("postgres_url"))
        await made._driver.script("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await made.migrate()
    yield made
    await made.close()
