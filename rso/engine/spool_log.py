"""The writing end of the log: one gathered write a record, one sync for all who wait."""

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from rso.core.errors import NoSpaceError, VolumeError
from rso.core.transport import Buffer
from rso.engine.spool_files import SegmentFiles
from rso.engine.spool_segment import HEAD, SEGMENT_HEAD, RecordType, Segment, encode_record

__all__ = ["Draft", "SegmentLog", "begin_writeback"]

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYNC_FILE_RANGE_WRITE = 2
_APPENDS_AFTER_A_LOSS = 32


def begin_writeback(fd: int, offset: int, size: int) -> None:
    """Have the system write dirty pages now, so that a later sync finds little left to do.

    Promises nothing: only a sync does, and it also tells of errors that happened here.
    """
    _LIBC.sync_file_range(
        fd, ctypes.c_int64(offset), ctypes.c_int64(size), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)
    )


class Draft:
    """A record whose bytes are written to the end of the log before it is whole.

    It is there for its writer only until another record is appended; then its bytes lie where
    that record is, mean nothing, and the record is written like any other.

    Attributes:
        lead: Bytes of the record before the ones that are written ahead.
        written: How many are.
    """

    def __init__(self, log: "SegmentLog", lead: int) -> None:
        self._log = log
        self.lead = lead
        self.written = 0

    def write(self, data: Buffer) -> None:
        """Write what follows; does nothing once the place is taken."""
        self._log.write_ahead(self, data)


class SegmentLog:
    """Appends records durably. Safe to use from many threads; one process a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = SegmentFiles(folder)
        self.space = self.files.space
        self._lock = threading.Lock()
        self._synced = threading.Condition()
        self._written = 0
        self._durable = 0
        self._syncing = False
        self._one_sync = threading.Lock()  # taken last: nothing else is waited for with it
        self._draft: Draft | None = None
        self._no_draft_for = 0  # appends: where many write, drafts are lost and only cost
        self._fd = -1
        self._ended = False  # the segment's last record is its end
        self._open_next()

    def _open_next(self) -> None:
        """Go over to the next segment; the lock is held, or nobody else is there yet."""
        segment, fd = self.files.open_next()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.segment, self._pos = fd, segment, SEGMENT_HEAD
        self._size = os.fstat(fd).st_size
        self._ended = False

    def _roll(self) -> None:
        """End the segment, and go on in the next one, which is made ready first."""
        if not self._ended:
            if not self.files.ready():
                raise NoSpaceError("out of space, try again later")
            self._write(encode_record(RecordType.END, self.segment), 0, 0)
            # Whatever happens now, a record after the end would never be read.
            self._ended = True
            self._sync_now(self._written)
        self._open_next()

    def draft(self, lead: int) -> Draft | None:
        """A draft of the next record, whose bytes after ``lead`` can be written ahead.

        ``None`` while somebody else has one, or several write at the same time.
        """
        with self._lock:
            if self._draft is None and not self._no_draft_for and not self._ended:
                self._draft = Draft(self, lead)
                return self._draft
            return None

    def write_ahead(self, draft: Draft, data: Buffer) -> None:
        """Write the next bytes of a draft, if its place is still free and they fit."""
        with self._lock:
            if self._draft is not draft:
                return
            offset = self._pos + draft.lead + draft.written
            try:
                if offset + len(data) + HEAD <= self._size and (
                    os.pwrite(self._fd, data, offset) == len(data)
                ):
                    draft.written += len(data)
                    begin_writeback(self._fd, offset, len(data))
                    return
            except OSError:
                pass  # the record itself will say so
            self._draft = None

    def forget(self, draft: Draft | None) -> None:
        """Give a draft's place back."""
        with self._lock:
            if draft is not None and self._draft is draft:
                self._draft = None

    def append(
        self, records: Callable[[Segment], Sequence[list[Buffer]]], draft: Draft | None = None
    ) -> None:
        """Write records as one unit and return once they are durable.

        Args:
            records: Makes the records for the segment they go into; called again when they go
                into the next one.
            draft: Of these records: the beginning of their last bytes is written already.

        Raises:
            NoSpaceError: No room; nothing was written.
            VolumeError: A write or sync failed, now or before.
        """
        with self._lock:
            self._check()
            drafted = draft is not None and self._draft is draft
            if self._draft is not None and not drafted:
                self._no_draft_for = _APPENDS_AFTER_A_LOSS
            self._no_draft_for = max(self._no_draft_for - 1, 0)
            self._draft = None
            made = [part for record in records(self.segment) for part in record]
            size = sum(map(len, made))
            ahead = (0, 0)
            if draft is not None and drafted and draft.lead == size - len(made[-1]):
                ahead = draft.lead, draft.written
            if self._ended or self._pos + size + HEAD > self._size:
                self._roll()
                ahead = (0, 0)
                made = [part for record in records(self.segment) for part in record]
                size = sum(map(len, made))
                if self._pos + size + HEAD > self._size:
                    raise NoSpaceError("larger than a segment of the spool")
            self._write(made, *ahead)
            ticket = self._written
        self._sync(ticket)

    def _check(self) -> None:
        if self.files.failed:
            raise VolumeError("the spool's volume failed and is not trusted any more")

    def _write(self, parts: Sequence[Buffer], lead: int, ahead: int) -> None:
        """Write at the end of the log, but for ``ahead`` bytes after ``lead`` that are there."""
        pos = self._pos
        size = sum(map(len, parts))
        first, rest = (_split(parts, lead, lead + ahead)) if ahead else (list(parts), [])
        for offset, buffers in ((pos, first), (pos + lead + ahead, rest)):
            wanted = sum(map(len, buffers))
            try:
                written = os.pwritev(self._fd, buffers, offset) if wanted else 0
            except OSError as exc:
                if exc.errno == errno.ENOSPC:
                    raise NoSpaceError("out of space, try again later") from exc
                self.files.fail(f"write failed: {exc.strerror}")
                raise VolumeError("a write to the spool failed") from exc
            if written != wanted:
                # What is there is never acknowledged; the next record overwrites it.
                raise NoSpaceError("out of space, try again later")
        self._pos += size
        self._written += 1

    def _sync(self, ticket: int) -> None:
        with self._synced:
            while self._durable < ticket and self._syncing:
                self._synced.wait()
            self._check()
            if self._durable >= ticket:
                return
            self._syncing = True
        try:
            with self._lock:
                target, fd = self._written, os.dup(self._fd)
            try:
                self._sync_fd(fd)
            finally:
                os.close(fd)
            with self._synced:
                self._durable = max(self._durable, target)
        finally:
            with self._synced:
                self._syncing = False
                self._synced.notify_all()

    def _sync_now(self, target: int) -> None:
        self._sync_fd(self._fd)
        with self._synced:
            self._durable = max(self._durable, target)
            self._synced.notify_all()

    def _sync_fd(self, fd: int) -> None:
        """Sync, unless a sync before this one failed.

        The system tells of a lost page once, to whoever syncs first; a second sync says yes. So
        one follows the other, and none begins before the failure of the last one is noted.
        """
        with self._one_sync:
            self._check()
            try:
                os.fdatasync(fd)
            except OSError as exc:
                self.files.fail(f"sync failed: {exc.strerror}")
                raise VolumeError("a sync of the spool failed") from exc

    def close(self) -> None:
        """Release the folder; the last segment is ended at the next start."""
        self.files.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _split(parts: Sequence[Buffer], start: int, end: int) -> tuple[list[Buffer], list[Buffer]]:
    """Buffers before ``start`` and after ``end``, both positions in all of them together."""
    before: list[Buffer] = []
    after: list[Buffer] = []
    pos = 0
    for part in parts:
        view = memoryview(part)
        if pos < start:
            before.append(view[: start - pos])
        if pos + len(view) > end:
            after.append(view[max(end - pos, 0) :])
        pos += len(view)
    return before, after
