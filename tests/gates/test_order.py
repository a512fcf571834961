"""R2: nothing is acknowledged before it is durable.

The oracle is the order of system calls, seen by strace: for an instance in the log, its write,
then a sync of the segment, then the answer; for a large one, the sync of its file, the rename,
the sync of the folder, the record with its own sync, then the answer.
"""

import ftplib
import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rso.testing.modality import send_files, stow
from rso.testing.pacs import Pacs
from rso.testing.site import Site
from rso.testing.study import make_study
from rso.testing.tracing import Call, Trace, mutant

pytestmark = pytest.mark.peers

CALLS = ["pwritev2", "pwritev", "pwrite64", "fdatasync", "fsync", "rename", "sendmsg", "sendto", "write",
         "writev"]  # fmt: skip
SMALL, LARGE = "RSOL\\2", "RSOL\\3"
# An answer on the wire: a P-DATA, an HTTP status line, an FTP reply.
DICOM, HTTP, FTP = 'iov_base="\\4\\0', '"HTTP/1.1 200', '"226 '


def faults(calls: list[Call], answer: str, *, each: int = 1) -> list[str]:
    """What is out of order in a trace of one connection; each answer is for so many instances."""
    sent = [c for c in calls if c.name.startswith(("send", "write")) and "<TCP:" in c.arguments]
    answers = [c for c in sent if answer in c.arguments]
    records = [
        c for c in calls
        if c.name.startswith("pwritev") and (SMALL in c.arguments or LARGE in c.arguments)
    ]  # fmt: skip
    found = [] if answers else ["no answer was seen"]
    for number, said in enumerate(answers):
        due = records[number * each : (number + 1) * each]
        if len(due) < each:
            found.append(f"answer {number}: its record was never written")
        for record in due:
            if not _synced(calls, record, said):
                found.append(f"answer {number}: no write < fdatasync < answer")
            if LARGE in record.arguments and not _placed(calls, record):
                found.append(f"answer {number}: no fsync < rename < fsync of folder < record")
    return found


def _between(calls: list[Call], begin: int, end: int, fits: Callable[[Call], bool]) -> Call | None:
    """A successful call that lies wholly between two places and fits."""
    return next(
        (c for c in calls if begin < c.began and c.ended < end and c.result == 0 and fits(c)), None
    )


def _synced(calls: list[Call], record: Call, said: Call) -> bool:
    """Whether the record, and whatever else of it was written, is synced before the answer."""
    writes = [c for c in calls if c.name.startswith("pwrite") and ".seg>" in c.arguments]
    last = max(c.ended for c in writes if c.began < said.began)
    return record.ended <= last < said.began and bool(
        _between(calls, last, said.began,
                 lambda c: c.name == "fdatasync" and ".seg>" in c.arguments)
    )  # fmt: skip


def _placed(calls: list[Call], record: Call) -> bool:
    file = _between(calls, -1, record.began,
                    lambda c: c.name == "fsync" and ".part>" in c.arguments)  # fmt: skip
    moved = file and _between(calls, file.ended, record.began,
                              lambda c: c.name == "rename" and ".dcm" in c.arguments)  # fmt: skip
    return bool(
        moved
        and _between(calls, moved.ended, record.began,
                     lambda c: c.name == "fsync" and c.arguments.endswith("/receive-0>"))
    )  # fmt: skip


def by_dicom(site: Site, files: list[Path]) -> None:
    """One association."""
    answers = send_files(files, host="127.0.0.1", port=site.dicom, calling_ae_title="NORTHPACS",
                         called_ae_title="RSO")  # fmt: skip
    assert set(answers.values()) == {0}


def by_http(site: Site, files: list[Path]) -> None:
    """One request."""
    assert stow(files, port=site.web, account=("north-gateway", "north's password"))


def by_ftp(site: Site, files: list[Path]) -> None:
    """One session."""
    with ftplib.FTP(timeout=60) as ftp:
        ftp.connect("127.0.0.1", site.ftp)
        ftp.login("north", "north's password")
        for number, file in enumerate(files):
            said = ftp.storbinary(f"STOR {number}.dcm", io.BytesIO(file.read_bytes()))
            assert said.startswith("226")


def traced(site: Site, role: str, folder: Path, act: Callable[[], None]) -> list[Call]:
    """The calls of a role's process while something is done to it."""
    with Trace(site.pid(role), folder / f"trace-{role}", CALLS) as trace:
        act()
        time.sleep(0.3)  # the last call's return may be seen after its effect
    return trace.calls()


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.proof)])
def test_write_then_sync_then_answer(
    running: Site, tmp_path: Path, samples: Path, count: int
) -> None:
    """By C-STORE, STOW-RS and FTP, small instances and large ones."""
    ct = samples / "CT_small.dcm"
    small = make_study(ct, tmp_path / "small", 3 * count)
    large = make_study(ct, tmp_path / "large", 2, side=2600)
    calls = traced(running, "receive", tmp_path, lambda: by_dicom(running, small[:count]))
    assert not faults(calls, DICOM)
    calls = traced(running, "receive", tmp_path, lambda: by_dicom(running, large[:1]))
    assert not faults(calls, DICOM)
    calls = traced(running, "receive", tmp_path, lambda: by_ftp(running, small[count : 2 * count]))
    assert not faults(calls, FTP)
    calls = traced(running, "receive", tmp_path, lambda: by_ftp(running, large[1:]))
    assert not faults(calls, FTP)
    calls = traced(running, "web", tmp_path, lambda: by_http(running, small[2 * count :]))
    assert not faults(calls, HTTP, each=count)


NO_SYNC = """
import os
os.fdatasync = lambda fd: None
"""
LATE = """
import pathlib, threading
rename = pathlib.Path.rename
def late(self, target):
    if self.suffix != ".part":
        return rename(self, target)
    threading.Timer(0.5, rename, (self, target)).start()
pathlib.Path.rename = late
"""


@pytest.mark.proof
def test_the_gate_can_fail(tmp_path: Path, samples: Path, pacs: Pacs) -> None:
    """A process that does not sync, or renames after the answer, is found."""
    ct = samples / "CT_small.dcm"
    site = Site(tmp_path, pacs.port)
    site.start("receive", environment=mutant(tmp_path / "mutant", NO_SYNC + LATE))
    try:
        files = make_study(ct, tmp_path / "small", 3)
        calls = traced(site, "receive", tmp_path, lambda: by_dicom(site, files))
        assert len(faults(calls, DICOM)) == 3
        files = make_study(ct, tmp_path / "large", 1, side=2600)
        calls = traced(site, "receive", tmp_path, lambda: by_dicom(site, files))
        assert any("rename" in fault for fault in faults(calls, DICOM))
    finally:
        site.stop()
