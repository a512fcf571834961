"""Gates find the defects they are for: each runs here against an RSO that has one.

R1, R2 and R9 to R14 have theirs beside them. A defect is code that runs in each process before RSO does.
"""

import sqlite3
import time
from hashlib import sha256
from pathlib import Path

import pytest

from rso.dicom.part10 import read_file_meta
from rso.testing.chaos import Chaos, ChaosProxy
from rso.testing.pacs import Pacs, script
from rso.testing.site import facility, wait_for
from rso.testing.storage import Ours, pixels_of, running_with
from rso.testing.study import make_study, missing, other_bytes
from rso.testing.tracing import Trace

pytestmark = [pytest.mark.peers, pytest.mark.proof]

EIO_IS_NOTHING = """
import os
real = os.fdatasync
def swallows(fd):
    try:
        real(fd)
    except OSError:
        pass
os.fdatasync = swallows
"""
NEVER_AGAIN = """
import asyncio
from rso.engine import intake_loop
real = intake_loop.take_in
async def gives_up(engine, records):
    try:
        await asyncio.wait_for(real(engine, records), 1.0)
    except TimeoutError:
        pass
intake_loop.take_in = gives_up
"""
BUSY_IS_STORED = """
import rso.core.delivery as delivery
real = delivery.classify_dimse
def wrong(status):
    return delivery.Outcome.ACKNOWLEDGED if status == 0xA700 else real(status)
delivery.classify_dimse = wrong
"""
ONE_AFTER_THE_OTHER = """
import threading
from rso_dicom_scu.plugin import DicomScu
real, turn = DicomScu.open, threading.Lock()
def waits(self, wanted):
    with turn:
        return real(self, wanted)
DicomScu.open = waits
"""
ONE_UID_ONE_INSTANCE = """
import rso.engine.archive as archive
archive.instance_digest = lambda syntax, dataset: "0" * 64
"""
LAST_BYTE_DIFFERS = """
from rso.engine.spool import LogBatch
real = LogBatch.append
def changes(self, dataset, **said):
    said.pop("ahead", None)
    whole = b"".join(bytes(part) for part in dataset)
    return real(self, [whole[:-1] + bytes([whole[-1] ^ 1])], **said)
LogBatch.append = changes
"""


def test_r4_finds_a_swallowed_error(tmp_path: Path, samples: Path, pacs: Pacs) -> None:
    """A sync that failed is answered with 0000."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 1)
    answers: dict[str, int] = {}
    with (
        running_with(EIO_IS_NOTHING, tmp_path, pacs.port) as ours,
        Trace(ours.pid(), tmp_path / "trace", ["fdatasync"],
              inject="fdatasync:error=EIO:when=1+"),
    ):  # fmt: skip
        ours.send(files, answers)
    assert set(answers.values()) == {0}


def test_r5_finds_what_is_not_read_again(tmp_path: Path, samples: Path, pacs: Pacs) -> None:
    """Intake that goes on behind what a locked database did not take loses it."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 6)
    answers: dict[str, int] = {}
    with running_with(NEVER_AGAIN, tmp_path, pacs.port) as ours:
        database = sqlite3.connect(ours.site.config.with_name("rso.sqlite"), timeout=30)
        database.isolation_level = None
        database.execute("BEGIN IMMEDIATE")
        ours.send(files[:3], answers)
        time.sleep(2.5)
        database.execute("ROLLBACK")
        database.close()
        ours.send(files[3:], answers)
        wait_for(lambda: missing(pacs, files[3:]) == 0, 60)
        assert set(answers.values()) == {0}
        assert missing(pacs, files[:3]) > 0


def test_r6_finds_a_misread_answer(tmp_path: Path, samples: Path, pacs: Pacs) -> None:
    """A700 taken for success: never asked again, and not there."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 3)
    uid = pixels_of(files[0].read_bytes())[0]
    pacs.answer = script({uid: [0xA700, 0]})
    with running_with(BUSY_IS_STORED, tmp_path, pacs.port) as ours:
        ours.send(files, {})

        def delivered() -> bool:
            return any(exam["status"] == "delivered" for exam in ours.site.exams())

        wait_for(delivered, 60)
        assert pacs.asked[uid] == 1
        assert missing(pacs, files) == 1


def test_r7_finds_destinations_that_wait(tmp_path: Path, samples: Path, pacs: Pacs) -> None:
    """One association at a time for all: who answers waits for who does not."""
    proxy = ChaosProxy(pacs.port)
    port = proxy.start()
    try:
        proxy.to_server = Chaos(black_hole_at_byte=0)
        pair = facility("MANY", {"HOLE": (port, ""), "OTHER": (pacs.port, "")})
        with running_with(ONE_AFTER_THE_OTHER, tmp_path, pacs.port, pair) as ours:
            sender, slowest = Ours(ours.site, "MANYPACS"), 0.0
            for number in range(4):
                files = make_study(samples / "CT_small.dcm", tmp_path / f"s{number}", 1)
                sender.send(files, {})
                began = time.monotonic()
                wait_for(lambda files=files: missing(pacs, files) == 0, 60)
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(6)  # the association to who answers has ended; the hole is tried again
            assert slowest > 3
    finally:
        proxy.stop()


def test_r8_finds_a_dropped_newcomer(tmp_path: Path, samples: Path, pacs: Pacs) -> None:
    """Other bytes of one UID taken for the same again: one copy, and no hold."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 2)
    twin = other_bytes(files[0], tmp_path / "twin")
    answers: dict[str, int] = {}
    with running_with(ONE_UID_ONE_INSTANCE, tmp_path, pacs.port) as ours:
        ours.send([*files, twin], answers)
        wait_for(lambda: missing(pacs, files) == 0, 60)
        time.sleep(2)
        assert set(answers.values()) == {0}
        assert len(ours.copies()[pixels_of(twin.read_bytes())[0]]) == 1
        assert ours.site.holds() == []


def test_r15_finds_a_changed_byte(tmp_path: Path, samples: Path, pacs: Pacs) -> None:
    """The digest of what leaves differs."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 1)
    data = files[0].read_bytes()
    meta = read_file_meta(data[: 1 << 17])
    uid, body = meta.sop_instance_uid, data[meta.dataset_offset :]
    with running_with(LAST_BYTE_DIFFERS, tmp_path, pacs.port) as ours:
        ours.send(files, {})
        wait_for(lambda: uid in pacs.by_uid(), 60)
    got = pacs.by_uid()[uid].dataset
    assert len(got) == len(body)
    assert sha256(got).digest() != sha256(body).digest()
