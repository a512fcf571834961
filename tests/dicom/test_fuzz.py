"""Whatever bytes come, the parsers answer with their own errors, soon, and in little memory.

``corpus/`` holds the seeds and every case that ever broke something; all are replayed each time.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_RQ

from rso.core.errors import IntakeError, NotDicomError
from rso.dicom.dimse import read_command, read_response
from rso.dicom.elements import EXPLICIT_BIG, IMPLICIT_LITTLE
from rso.dicom.header import scan_beginning, scan_header
from rso.dicom.offer import excess
from rso.dicom.part10 import read_file_meta, walk_bytes
from rso.dicom.wire import WireError
from rso.testing.mutations import corpus, mutated

CORPUS = Path(__file__).with_name("corpus")
SYNTAXES = (IMPLICIT_LITTLE, "1.2.840.10008.1.2.1", EXPLICIT_BIG, "1.2.840.10008.1.2.4.70")
SHORT_RUN = settings(
    max_examples=150, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
LONG_RUN = settings(SHORT_RUN, max_examples=20_000, derandomize=False)


def command(data: bytes) -> None:
    """A command set, as request and as answer."""
    for read in (read_command, read_response):
        with contextlib.suppress(WireError):
            read(data)


def header(data: bytes) -> None:
    """A dataset in every encoding; the quick scan of its beginning never says anything else."""
    for syntax in SYNTAXES:
        whole = None
        with contextlib.suppress(IntakeError):
            whole = scan_header(data, syntax)
        try:
            beginning = scan_beginning(data[:600], syntax, len(data))
        except IntakeError:
            continue
        if whole is not None:
            assert beginning == whole


def request(data: bytes) -> None:
    """The items of an A-ASSOCIATE-RQ: what is not too much is soon decoded, or refused."""
    with contextlib.suppress(WireError):
        if excess(data):
            return
        head = b"\0\1\0\0" + b"RSO".ljust(16) + b"CT".ljust(16) + bytes(32)
        pdu = A_ASSOCIATE_RQ()
        with contextlib.suppress(Exception):  # pynetdicom raises what it likes
            pdu.decode(b"\1\0" + (len(head) + len(data)).to_bytes(4, "big") + head + data)
            pdu.to_primitive()


def part10(data: bytes) -> None:
    """A file: its meta, and whether it is whole."""
    with contextlib.suppress(NotDicomError):
        read_file_meta(data)
    walk_bytes(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "command": command, "header": header, "part10": part10, "request": request,
}  # fmt: skip


def timed(target: Callable[[bytes], None], data: bytes) -> None:
    """A case, which may take no longer than parsing takes."""
    began = time.process_time()
    target(data)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("name", TARGETS)
def test_kept_cases(name: str) -> None:
    """What broke something once does not again."""
    cases = corpus(CORPUS / name)
    assert len(cases) >= 3
    for case in cases:
        timed(TARGETS[name], case)


@pytest.mark.parametrize("name", TARGETS)
def test_broken_bytes(name: str) -> None:
    """Seeds, broken in some hundred ways."""
    SHORT_RUN(given(mutated(corpus(CORPUS / name)))(lambda data: timed(TARGETS[name], data)))()


@pytest.mark.proof
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", TARGETS)
def test_many_broken_bytes(name: str) -> None:
    """R12, parsers: 20,000 cases each, others in every run."""
    strategy = st.one_of(mutated(corpus(CORPUS / name)), st.binary(max_size=400))
    LONG_RUN(given(strategy)(lambda data: timed(TARGETS[name], data)))()
