"""Fixtures of RSO's own tests."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pydicom
import pytest

from rso.ledger import Ledger


@pytest.fixture(scope="session")
def samples() -> Path:
    """The sample files inside pydicom's package."""
    return Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of its own in a temporary folder, reached by a socket."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        reason = "PostgreSQL is not installed"
        if os.environ.get("RSO_REQUIRE_PEERS"):
            pytest.fail(reason)
        pytest.skip(reason)
    binaries = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="rso-pg-"))
    run = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if run:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    subprocess.run(
        [*run, binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8"],
        check=True,
        capture_output=True,
    )
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    subprocess.run(
        [*run, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"],
        check=True,
        capture_output=True,
    )
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        subprocess.run(
            [*run, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"],
            check=True,
            capture_output=True,
        )
        shutil.rmtree(folder, ignore_errors=True)


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
