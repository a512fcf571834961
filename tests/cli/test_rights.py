"""Another account of the machine reads nothing that RSO keeps."""

import os
import subprocess
import sys
from pathlib import Path

from rso.engine.check import _folder
from rso.ledger import Ledger


def modes(folder: Path) -> dict[str, str]:
    """Each file's and folder's rights, by its name."""
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.rglob("*")}
    return {**found, folder.name: oct(folder.stat().st_mode & 0o777)}


def test_a_new_site_is_closed_to_others(tmp_path: Path) -> None:
    """Whatever the umask of whoever ran ``rso init``."""
    done = subprocess.run(
        [sys.executable, "-m", "rso", "init", str(tmp_path / "site")],
        capture_output=True, text=True, check=False, umask=0o022,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert modes(tmp_path / "site") == {
        "site": "0o700", "rso.toml": "0o600", "rso.sqlite": "0o600", "rso.migrate.lock": "0o600",
        "data": "0o700", "archive": "0o700",
    }  # fmt: skip


async def test_an_earlier_database_is_closed_to_others(tmp_path: Path) -> None:
    """And what SQLite keeps beside it; a group that somebody let in stays."""
    before = os.umask(0o022)
    try:
        (tmp_path / "rso.sqlite").touch(0o664)
        (tmp_path / "rso.sqlite").chmod(0o644)
        ledger = await Ledger.open(f"sqlite:{tmp_path / 'rso.sqlite'}")
        await ledger.migrate()
        found = modes(tmp_path)
        await ledger.close()
    finally:
        os.umask(before)
    assert {found[f"rso.sqlite{end}"] for end in ("", "-wal", "-shm")} == {"0o640"}


def test_an_open_folder_is_warned_of(tmp_path: Path) -> None:
    """It works, and ``rso check`` says what to do."""
    tmp_path.chmod(0o755)
    found = _folder("data", tmp_path)
    assert (found.ok, found.warning) == (True, True)
    assert "chmod 700" in found.detail
    tmp_path.chmod(0o700)
    assert not _folder("data", tmp_path).warning
