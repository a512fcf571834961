"""R20: a backup made in the middle of the work, as docs/operations.md says, and what is there after it.

The oracle is the sender's log of acknowledgements, by when the backup began, against the archive,
the ledger and the PACS of the restored site.
"""

import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for
from rso.testing.storage import Ours, pixels_of
from rso.testing.study import make_study

pytestmark = pytest.mark.timeout(400)


class Archivist:
    """The backup of a running site, and its restoring."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.data = site.config.parent / "data"
        self.database = next(site.config.parent.rglob("rso.sqlite"))
        self.folder = folder
        folder.mkdir()

    def save(self, *, between: Any = lambda: None) -> None:
        """In the order of the manual; ``between`` is called before each folder."""
        with (
            sqlite3.connect(self.database) as source,
            sqlite3.connect(self.folder / "rso.sqlite") as target,
        ):
            source.backup(target)
        for name in ("spool", "archive", "documents"):
            between()
            if (self.data / name).exists():
                # Files may go while they are copied, as with any program that copies.
                shutil.copytree(
                    self.data / name, self.folder / name, copy_function=self._copy,
                    dirs_exist_ok=True,
                )  # fmt: skip

    @staticmethod
    def _copy(source: str, target: str) -> None:
        if Path(source).exists():
            shutil.copy2(source, target)

    def restore_database(self) -> None:
        """The database alone."""
        for file in self.database.parent.glob("rso.sqlite*"):
            file.unlink()
        shutil.copy2(self.folder / "rso.sqlite", self.database)

    def restore(self) -> None:
        """Everything, on an empty volume."""
        self.restore_database()
        shutil.rmtree(self.data)
        for name in ("spool", "archive", "documents"):
            if (self.folder / name).exists():
                shutil.copytree(self.folder / name, self.data / name)


class Clinic:
    """Sends Study after Study until it has sent all; what was acknowledged, in order.

    ``first`` of them at once, if said, and more as ``turns`` is released.
    """

    def __init__(
        self, site: Site, samples: Path, folder: Path, studies: int, each: int, first: int = 0
    ) -> None:
        self.turns = threading.Semaphore(first or studies)
        self.ours = Ours(site)
        self.files = [
            make_study(samples / "CT_small.dcm", folder / f"{i}", each, PatientID=f"P{i}",
                       PatientName=f"DOE^{i}")
            for i in range(studies)
        ]  # fmt: skip
        # What is sent, by SOP Instance UID.
        self.pixels = dict(pixels_of(file.read_bytes()) for study in self.files for file in study)
        self.answers: dict[str, int] = {}
        self.thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        for study in self.files:
            self.turns.acquire()
            self.ours.send(study, self.answers)

    @property
    def acknowledged(self) -> set[str]:
        """The instances that RSO promised to keep."""
        return {uid for uid, status in list(self.answers.items()) if status == 0}


def proved(site: Site) -> int:
    """How many instances every exam's PACS has acknowledged; 0 while one is not whole."""
    exams = site.exams()
    if any(e["deliveries"][0]["acknowledged"] != e["instances"] for e in exams if e["instances"]):
        return 0
    return sum(int(e["instances"]) for e in exams)


def compare(site: Site, clinic: Clinic, pacs: Pacs, promised: set[str]) -> None:
    """Everything promised is in archive, ledger and PACS, once and byte for byte."""
    kept = wait_for(lambda: (now := clinic.ours.copies()).keys() >= promised and now)
    for uid, copies in kept.items():
        assert copies == [clinic.pixels[uid]]
    assert wait_for(lambda: proved(site) == len(kept), 60)
    assert pacs.by_uid().keys() >= kept.keys()
    assert not site.holds()
    # Each difference between ledger and archive would be counted here.
    again = site.rso("reindex", "--json")
    nothing = {"brought_back": 0, "unreadable": 0, "missing": 0, "set_aside": 0}
    assert again == {"files": len(kept), **nothing}
    assert site.run("audit", "verify").returncode == 0


def test_the_volume_burns(site: Site, samples: Path, tmp_path: Path, pacs: Pacs) -> None:
    """Everything that was acknowledged when the backup began is there, and is delivered."""
    clinic = Clinic(site, samples, tmp_path / "clinic", 12, 40, first=4)
    asked = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", "ROE^RICHARD",
                     "--json")["exam_number"]  # fmt: skip
    clinic.thread.start()
    wait_for(lambda: len(clinic.acknowledged) > 100)
    promised = clinic.acknowledged
    archivist = Archivist(site, tmp_path / "backup")

    def more() -> None:
        """Images wander on while the backup is made."""
        had = len(clinic.acknowledged)
        clinic.turns.release(2)
        wait_for(lambda: len(clinic.acknowledged) > had + 20)

    archivist.save(between=more)
    clinic.turns.release(12)
    late = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", "LATE^ONE",
                    "--json")["exam_number"]  # fmt: skip
    clinic.thread.join()
    site.die()
    archivist.restore()
    found = site.rso("reindex", "--json")
    assert found["missing"] == 0
    site.start()
    compare(site, clinic, pacs, promised)
    numbers = {e["exam_number"] for e in site.exams()}
    assert asked in numbers
    assert late not in numbers
    # And it goes on from there.
    clinic.answers.clear()
    clinic.ours.send([file for study in clinic.files for file in study], clinic.answers)
    assert len(clinic.acknowledged) == len(clinic.pixels)
    compare(site, clinic, pacs, clinic.acknowledged)


def test_only_the_database_is_lost(site: Site, samples: Path, tmp_path: Path, pacs: Pacs) -> None:
    """With spool and archive at hand nothing that was ever acknowledged is missing."""
    clinic = Clinic(site, samples, tmp_path / "clinic", 8, 40)
    clinic.thread.start()
    wait_for(lambda: len(clinic.acknowledged) > 60)
    archivist = Archivist(site, tmp_path / "backup")
    archivist.save()
    clinic.thread.join()
    site.die()
    archivist.restore_database()
    found = site.rso("reindex", "--json")
    assert found["missing"] == 0
    site.start()
    compare(site, clinic, pacs, clinic.acknowledged)


def test_what_is_missing_is_told(site: Site, samples: Path, tmp_path: Path) -> None:
    """A file that the backup has not, and one that is cut, are counted and in the audit."""
    clinic = Clinic(site, samples, tmp_path / "clinic", 1, 6)
    clinic.thread.start()
    clinic.thread.join()
    wait_for(lambda: proved(site) == 6)
    assert site.stop() == 0
    gone, cut, odd = sorted((site.config.parent / "data" / "archive").rglob("*.dcm"))[:3]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-10])
    odd.write_bytes(b"not DICOM" * 100)
    done = site.run("reindex", "--json")
    assert done.returncode == 1
    assert "3 instances have no whole file" in done.stderr
    assert '"missing": 3' in done.stdout
    assert '"unreadable": 1' in done.stdout
