"""What stands behind RSO goes away for a while: what was acknowledged arrives all the same."""

import ftplib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from rso.testing.fixtures import missing as missing_peer
from rso.testing.modality import send_files
from rso.testing.pacs import Pacs
from rso.testing.site import Site, free_port
from rso.testing.study import delivered, make_study, missing


class Postgres:
    """A server of its own that can be stopped and started."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            missing_peer("PostgreSQL")
        self._binaries = found[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="rso-pg-"))
        self.port = free_port()
        self._run = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._run:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._command("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "postgres")

    @property
    def url(self) -> str:
        """For rso.toml."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _command(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [*self._run, self._binaries / program, *arguments], check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        """Listen on loopback."""
        options = f"-p {self.port} -k {self.folder} -c fsync=off"
        self._command("pg_ctl", "-D", self.folder / "data", "-w", "-o", options, "start")

    def stop(self) -> None:
        """As in a crash."""
        self._command("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Running."""
    made = Postgres()
    made.start()
    yield made
    made.stop()
    shutil.rmtree(made.folder, ignore_errors=True)


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.proof)])
def test_the_database_is_away(
    postgres: Postgres, samples: Path, tmp_path: Path, pacs: Pacs, seconds: int
) -> None:
    """Receivers go on without it; when it is back everything is taken in and delivered."""
    site = Site(tmp_path, pacs.port, f'database.url="{postgres.url}"')
    site.start()
    try:
        name = str(pydicom.dcmread(samples / "CT_small.dcm").PatientName)
        number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", name,
                          "--json")["exam_number"]  # fmt: skip
        files = make_study(samples / "CT_small.dcm", tmp_path / "study", 60, PatientID=number)
        postgres.stop()
        until = time.monotonic() + seconds
        answers = send_files(files[:30], host="127.0.0.1", port=site.dicom,
                             calling_ae_title="NORTHCT", called_ae_title="RSO")  # fmt: skip
        assert set(answers.values()) == {0}
        with ftplib.FTP_TLS(timeout=20) as ftp:
            ftp.connect("127.0.0.1", site.ftp)
            ftp.login("north", "north's password")
            ftp.prot_p()
            for file in files[30:]:
                with file.open("rb") as stream:
                    assert ftp.storbinary(f"STOR {file.name}", stream) == "226 Kept."
        time.sleep(max(until - time.monotonic(), 0))
        assert not pacs.received
        postgres.start()
        delivered(site, number, 60)
        assert missing(pacs, files) == 0
    finally:
        assert site.stop() == 0
