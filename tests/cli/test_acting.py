"""Root's commands leave RSO's own account nothing that it cannot use."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rso.cli.acting import acting_as_service
from rso.settings import Settings, load_settings

SERVICE = 65533  # no account has it: as that of another container

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as others")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every account may look into, unlike ``tmp_path``."""
    made = Path(tempfile.mkdtemp(prefix="rso-acting-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def site(folder: Path, database: str) -> Settings:
    """A site whose database and data are the service's."""
    (folder / "rso.toml").write_text(f'[database]\nurl = "{database}"\n')
    settings = load_settings(folder / "rso.toml")
    settings.data_dir.mkdir()
    for path in (folder, settings.data_dir):
        os.chown(path, SERVICE, SERVICE)
    return settings


@pytest.mark.parametrize("database", ["sqlite:rso.sqlite", "postgresql:///rso"])
def test_root_acts_as_the_service(folder: Path, database: str) -> None:
    """What is made inside is the service's; outside, root is root again."""
    settings = site(folder, database)
    if database.startswith("sqlite"):
        (folder / "rso.sqlite").touch()
        os.chown(folder / "rso.sqlite", SERVICE, SERVICE)
    groups = os.getgroups()
    with acting_as_service(settings):
        (settings.data_dir / "made").touch()
        assert not os.access("/root", os.W_OK, effective_ids=True)
    found = (settings.data_dir / "made").stat()
    assert (found.st_uid, found.st_gid) == (SERVICE, SERVICE)
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, os.getgid(), groups)


def test_root_stays_root_where_root_serves(folder: Path) -> None:
    """Before there is a database, and where what ran last was root's."""
    settings = site(folder, "sqlite:rso.sqlite")
    with acting_as_service(settings):
        assert os.geteuid() == 0
    (folder / "rso.sqlite").touch()
    os.chown(folder / "rso.sqlite", SERVICE, SERVICE)
    (settings.data_dir / "work-0.lock").touch()
    with acting_as_service(settings):
        assert os.geteuid() == 0
