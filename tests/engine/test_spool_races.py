"""The log's two ends at the same time: one goes on between two steps of the other."""

import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rso.core.errors import NoSpaceError, VolumeError
from rso.core.transport import Kind, Provenance
from rso.engine.intake_loop import IntakeLoop
from rso.engine.spool import LogBatch, LogSpool
from rso.engine.spool_reader import InstanceRecord, Record, SpoolReader
from rso.ledger.exams import now

PROVENANCE = Provenance(
    channel="dicom_scp", facility="NORTH", source="CT", kind=Kind.INTEGRATION,
    peer_address="127.0.0.1", opened_at=now(),
)  # fmt: skip


def append(batch: LogBatch, dataset: tuple[bytes, str], size: int) -> str:
    """Append an instance of about this size; the id of its record."""
    data = dataset[0] + b"\xfc\xff\xfc\xffOB\0\0" + size.to_bytes(4, "little") + bytes(size)
    return batch.append([data], transfer_syntax_uid=dataset[1]).record_id


def fill(spool: LogSpool, batch: LogBatch, dataset: tuple[bytes, str], *, until: int) -> list[str]:
    """Append instances of 2 MB until so many segments are in use; the ids of their records."""
    kept = []
    while spool.log.segment.number < until:
        kept.append(append(batch, dataset, 2 << 20))
    return kept


def read_ids(reader: SpoolReader) -> list[str]:
    """The ids of the instances' records that a reader comes to."""
    found: list[str] = []
    while records := reader.read(64, 1 << 26):
        found += [r.record_id for r in records if isinstance(r, InstanceRecord)]
    return found


def before_its_look_at_the_segments(
    reader: SpoolReader, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]
) -> None:
    """Let the reader be overtaken once, just before it lists the segments."""
    there, waiting = reader._segments, [work]

    def segments() -> list[int]:
        if waiting:
            waiting.pop()()
        return there()

    monkeypatch.setattr(reader, "_segments", segments)


def test_a_record_that_comes_between_two_looks_of_the_reader_is_read(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found nothing at the log's end; then records came, the last of that segment, and the next
    segment.
    """
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    kept = [append(batch, dataset, 100)]
    reader = SpoolReader(spool.log.folder)
    found = [r.record_id for r in reader.read(2, 1 << 26) if isinstance(r, InstanceRecord)]
    before_its_look_at_the_segments(
        reader, monkeypatch, lambda: kept.extend(fill(spool, batch, dataset, until=2))
    )
    assert found + read_ids(reader) == kept
    assert len(kept) > 2
    spool.close()


def test_a_segment_that_comes_between_two_looks_of_the_reader_is_read(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood behind an ended segment and found no next one; then that came, and one more."""
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    spool.log.files._next_ready.wait()

    def fails(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        with pytest.raises((NoSpaceError, VolumeError)):
            fill(spool, batch, dataset, until=2)
    reader = SpoolReader(spool.log.folder)
    read_ids(reader)
    assert reader.position == (2, 0)
    kept: list[str] = []
    before_its_look_at_the_segments(
        reader, monkeypatch, lambda: kept.extend(fill(spool, batch, dataset, until=3))
    )
    assert read_ids(reader) == kept
    spool.close()


async def turn(loop: IntakeLoop) -> None:
    """Take in everything there is."""
    while await loop.step():
        pass


async def test_what_a_broken_read_had_gathered_is_taken_in_later(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two segments cannot be opened for a while: the first one's records, read in
    the same turn, are not passed over.
    """
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    kept = fill(spool, batch, dataset, until=2)
    taken: list[str] = []
    opened = Path.open

    async def take(_engine: object, records: list[Record]) -> None:
        taken.extend(r.record_id for r in records if isinstance(r, InstanceRecord))

    def fails(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == f"{2:012d}.seg":
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *args, **more)

    monkeypatch.setattr("rso.engine.intake_loop.take_in", take)
    loop = IntakeLoop(None, tmp_path / "spool")  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fails)
        with pytest.raises(OSError, match="Too many"):
            await turn(loop)
    await turn(loop)
    assert taken == kept
    spool.close()


def test_a_reader_keeps_no_batch_that_is_over(tmp_path: Path, dataset: tuple[bytes, str]) -> None:
    """Neither one that closed, nor, in the next segment, one whose channel died; and each instance
    has its provenance all the same, after a rewind too.
    """
    spool = LogSpool(tmp_path / "spool" / "a")
    reader = SpoolReader(spool.log.folder)
    for _ in range(3):
        batch = spool.open_batch(PROVENANCE)
        append(batch, dataset, 100)
        batch.close()
    assert len(read_ids(reader)) == 3
    assert not reader._batches
    append(spool.open_batch(PROVENANCE), dataset, 100)
    live = spool.open_batch(PROVENANCE)
    kept = fill(spool, live, dataset, until=2)
    assert read_ids(reader)[1:] == kept
    assert list(reader._batches) == [live.id]
    reader.rewind(None)
    again = [r for r in reader.read(256, 1 << 30) if isinstance(r, InstanceRecord)]
    assert len(again) == 4 + len(kept)
    assert {r.provenance for r in again} == {PROVENANCE}
    spool.close()


class OneError:
    """A sync that fails and is not back yet; the error is said, so the next ones succeed."""

    def __init__(self) -> None:
        self.began, self.back = threading.Event(), threading.Event()

    def __call__(self, _fd: int) -> None:
        """``os.fdatasync``."""
        if not self.began.is_set():
            self.began.set()
            self.back.wait(1)
            raise OSError(errno.EIO, "Input/output error")


def test_no_sync_says_yes_after_one_that_failed(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread's sync is told of lost bytes; before it can say so, another one goes over to the
    next segment and syncs the same file: nobody is told that the bytes are kept.
    """
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    while spool.log._pos + (9 << 20) < spool.log._size:
        append(batch, dataset, 4 << 20)
    spool.log.files._next_ready.wait()
    sync = OneError()
    monkeypatch.setattr(os, "fdatasync", sync)

    def waits() -> None:
        append(batch, dataset, 100)
        sync.back.set()  # it has its answer

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(append, batch, dataset, 100)
        assert sync.began.wait(5)
        written = spool.log._written
        second = threads.submit(waits)
        while spool.log._written == written:
            time.sleep(0.01)
        third = threads.submit(append, batch, dataset, 10 << 20)
        assert [type(f.exception(10)) for f in (first, second, third)] == [VolumeError] * 3
    spool.close()
