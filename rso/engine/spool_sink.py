"""A dataset that arrives in parts: in memory while it is small, then in a file of its own."""

import errno
import os
from typing import TYPE_CHECKING

from rso.core.errors import NoSpaceError, RefusedError, VolumeError
from rso.core.header import Header
from rso.core.transport import Buffer, Receipt
from rso.engine.spool_ahead import Announced
from rso.engine.spool_files import PASSING, sync_folder
from rso.engine.spool_log import begin_writeback
from rso.ledger import new_id

if TYPE_CHECKING:
    from rso.engine.spool import LogBatch, LogSpool

__all__ = ["LogSink"]

_MOST_BYTES = 64 << 30
_WRITEBACK_STEP = 8 << 20


class LogSink:
    """One dataset on its way in."""

    def __init__(self, batch: "LogBatch", spool: "LogSpool", announced: Announced) -> None:
        self._batch, self._spool, self._announced = batch, spool, announced
        self._parts: list[bytes] = []
        self._size = 0
        self._fd = -1
        self._in_file = self._begun = 0  # bytes written, and those on their way to the disk
        self._header: Header | None = None
        self._offset = 0
        self._record_id = new_id()
        self._part = spool.log.folder / f"large-{self._record_id}.part"

    def write(self, data: Buffer) -> None:
        """Take the next bytes."""
        self._size += len(data)
        if self._size > _MOST_BYTES:
            raise RefusedError("the dataset is larger than 64 GB")
        if self._fd >= 0:
            self._put(data)
            return
        if self._size <= self._spool.large:
            self._parts.append(bytes(data))
            return
        # Nothing is joined that need not be: this is where memory would grow.
        held = b"".join([*self._parts, data]) if self._parts else data
        self._parts = []
        self._spill(held)

    def _spill(self, held: Buffer) -> None:
        self._header = self._batch.scan(held, self._announced, total=_MOST_BYTES)
        meta = self._batch.file_meta(self._header)
        self._offset = len(meta)
        try:
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as exc:
            raise _volume(exc) from exc
        self._put(meta)
        self._put(held)

    def _put(self, data: Buffer) -> None:
        self._spool.log.space.require(len(data))
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._fd, view)
            except OSError as exc:
                raise self._failed(exc, "write") from exc
            view = view[count:]
            self._in_file += count
        if self._in_file - self._begun >= _WRITEBACK_STEP:
            begin_writeback(self._fd, self._begun, self._in_file - self._begun)
            self._begun = self._in_file

    def commit(self) -> Receipt:
        """Return once the instance is durable."""
        if self._fd < 0:
            kind, cls, instance = self._announced
            return self._batch.append(
                self._parts, transfer_syntax_uid=kind, sop_class_uid=cls, sop_instance_uid=instance
            )
        assert self._header is not None
        final = self._part.with_suffix(".dcm")
        try:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._part.rename(final)
            sync_folder(self._spool.log.folder)
        except OSError as exc:
            raise self._failed(exc, "sync") from exc
        try:
            self._batch.note_large(self._header, final, self._record_id, self._offset, self._size)
        except NoSpaceError:
            # No record, so nobody else knows the file. After any other fault one may stand.
            final.unlink(missing_ok=True)
            raise
        return Receipt(record_id=self._record_id, header=self._header, size=self._size)

    def _failed(self, exc: OSError, what: str) -> NoSpaceError | VolumeError:
        """A volume that failed a write or a sync is not asked again, as with the log itself."""
        error = _volume(exc)
        if isinstance(error, VolumeError) and exc.errno not in PASSING:
            self._spool.log.files.fail(f"{what} of a large file failed: {exc.strerror}")
        return error

    def abort(self) -> None:
        """Forget what was written."""
        self._parts = []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._part.unlink(missing_ok=True)


def _volume(exc: OSError) -> NoSpaceError | VolumeError:
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpaceError("out of space, try again later")
    return VolumeError("a write to the spool failed")
