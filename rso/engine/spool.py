"""The spool: the one way in. What it has acknowledged is on disk."""

import contextlib
import errno
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import structs

from rso.core.errors import (
    IdentifierError,
    NoSpaceError,
    NotDicomError,
    RefusedError,
    VolumeError,
)
from rso.core.header import Header
from rso.core.transport import Buffer, Provenance, Receipt
from rso.dicom.header import scan_beginning, scan_header
from rso.dicom.part10 import build_file_meta
from rso.engine.quarantine import Quarantine
from rso.engine.spool_log import SegmentLog, sync_folder
from rso.engine.spool_segment import (
    InstanceMeta,
    RecordType,
    StoredProvenance,
    encode_record,
)
from rso.ledger import new_id

__all__ = ["LogSpool"]

_LARGE = 12 << 20  # above this a dataset gets a file of its own
_MOST_BYTES = 64 << 30
_MOST_PIECES = 512  # the system gathers at most 1024 in one write


class LogSpool:
    """A write-ahead log in one folder, for one receiving process."""

    def __init__(self, folder: Path, *, large: int = _LARGE) -> None:
        self.log = SegmentLog(folder)
        self.large = min(large, self.log.segment_size // 2)
        self.quarantine = Quarantine(folder.parent.parent / "quarantine")

    def open_batch(self, provenance: Provenance) -> "LogBatch":
        """Begin a batch; its provenance becomes durable with its first instance."""
        return LogBatch(self, provenance)

    def require_space(self, size: int) -> None:
        """Raise NoSpaceError unless ``size`` more bytes fit above the low-water mark."""
        self.log.space.require(size)

    def alert(self, kind: str, facts: Mapping[str, str]) -> None:
        """Note a security-relevant event for the audit; facts hold no patient data."""
        meta = msgspec.json.encode([kind, dict(facts)])
        self.log.append(lambda segment: [encode_record(RecordType.ALERT, segment, meta=meta)])

    def close(self) -> None:
        """Close the log."""
        self.log.close()


class LogBatch:
    """One association, upload or session."""

    def __init__(self, spool: LogSpool, provenance: Provenance) -> None:
        self.id = new_id()
        self.provenance = provenance
        self._spool = spool
        self._stored = msgspec.json.encode(StoredProvenance(batch=self.id, provenance=provenance))
        self._noted_in = 0  # the segment that holds this batch's record
        self._used = False
        self._closed = False
        self._lock = threading.Lock()

    def append(
        self,
        dataset: Sequence[Buffer],
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str = "",
        sop_instance_uid: str = "",
    ) -> Receipt:
        """Keep one dataset and return once it is durable; see ``core.transport.Batch``."""
        size = sum(map(len, dataset))
        if size > self._spool.large:
            sink = self.open(
                transfer_syntax_uid=transfer_syntax_uid,
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
            )
            for part in dataset:
                sink.write(part)
            return sink.commit()
        self._spool.log.space.require(size)
        if len(dataset) > _MOST_PIECES:
            dataset = [b"".join(dataset)]
        header = self._scan_pieces(
            dataset, size, (transfer_syntax_uid, sop_class_uid, sop_instance_uid)
        )
        meta = self._file_meta(header)
        record_id = new_id()
        said = InstanceMeta(
            header=header,
            dataset_offset=len(meta),
            size=size,
            received_at=datetime.now(UTC),
        )
        self._write(RecordType.INSTANCE, record_id, said, (meta, *dataset))
        return Receipt(record_id=record_id, header=header, size=size)

    def _scan_pieces(
        self, dataset: Sequence[Buffer], size: int, announced: tuple[str, str, str]
    ) -> Header:
        """Scan the first piece; only where that is not enough are all of them joined."""
        if len(dataset) < 2:
            return self.scan(dataset[0] if dataset else b"", *announced)
        with contextlib.suppress(NotDicomError, IdentifierError):
            return _agreed(scan_beginning(dataset[0], announced[0], size), *announced[1:])
        return self.scan(b"".join(dataset), *announced)

    def scan(
        self,
        data: Buffer,
        transfer_syntax_uid: str,
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        total: int | None = None,
    ) -> Header:
        """Scan and check a header; what is refused leaves a copy in quarantine."""
        try:
            header = scan_header(data, transfer_syntax_uid, total=total)
            return _agreed(header, sop_class_uid, sop_instance_uid)
        except (NotDicomError, IdentifierError) as exc:
            self._spool.quarantine.keep(data, str(exc), self.provenance)
            raise

    def _file_meta(self, header: Header) -> bytes:
        return build_file_meta(
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax_uid=header.transfer_syntax_uid,
            source_ae_title=self.provenance.calling_ae_title,
            private_information=self._stored,
        )

    def _write(
        self,
        kind: RecordType,
        record_id: str,
        said: InstanceMeta,
        payload: Sequence[Buffer] = (),
    ) -> None:
        meta = msgspec.msgpack.encode(said)

        def records(segment: int) -> list[list[Buffer]]:
            made = []
            if self._noted_in != segment:
                made.append(
                    encode_record(RecordType.BATCH, segment, batch_id=self.id, meta=self._stored)
                )
                self._noted_in = segment
            made.append(
                encode_record(
                    kind,
                    segment,
                    record_id=record_id,
                    batch_id=self.id,
                    meta=meta,
                    payload=payload,
                )
            )
            return made

        try:
            self._spool.log.append(records)
        except (NoSpaceError, VolumeError):
            self._noted_in = 0
            raise
        self._used = True

    def open(
        self,
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str = "",
        sop_instance_uid: str = "",
    ) -> "LogSink":
        """Begin a dataset that arrives in parts; small ones stay in memory until committed."""
        return LogSink(self, self._spool, (transfer_syntax_uid, sop_class_uid, sop_instance_uid))

    def set_aside(self, data: Buffer, reason: str) -> None:
        """Copy bytes that cannot be kept as an instance into the quarantine."""
        self._spool.quarantine.keep(data, reason, self.provenance)

    def close(self) -> None:
        """End the batch; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._used:
            self._spool.log.append(
                lambda segment: [encode_record(RecordType.CLOSE, segment, batch_id=self.id)]
            )


class LogSink:
    """A dataset on its way in: in memory while it is small, then in a file of its own."""

    def __init__(self, batch: LogBatch, spool: LogSpool, announced: tuple[str, str, str]) -> None:
        self._batch, self._spool, self._announced = batch, spool, announced
        self._parts: list[bytes] = []
        self._size = 0
        self._fd = -1
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
        self._header = self._batch.scan(held, *self._announced, total=_MOST_BYTES)
        meta = self._batch._file_meta(self._header)
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
                view = view[os.write(self._fd, view) :]
            except OSError as exc:
                raise _volume(exc) from exc

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
            raise _volume(exc) from exc
        said = InstanceMeta(
            header=self._header,
            dataset_offset=self._offset,
            size=self._size,
            received_at=datetime.now(UTC),
            file=final.name,
        )
        try:
            self._batch._write(RecordType.LARGE, self._record_id, said)
        except NoSpaceError:
            # No record, so nobody else knows the file. After any other fault one may stand.
            final.unlink(missing_ok=True)
            raise
        return Receipt(record_id=self._record_id, header=self._header, size=self._size)

    def abort(self) -> None:
        """Forget what was written."""
        self._parts = []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._part.unlink(missing_ok=True)


def _agreed(header: Header, sop_class_uid: str, sop_instance_uid: str) -> Header:
    """The header if it says what the sender announced; completed by that where it says nothing."""
    if not header.sop_class_uid:
        if not sop_class_uid:
            raise NotDicomError("element 00080016 holds no UID")
        header = structs.replace(header, sop_class_uid=sop_class_uid)
    if sop_instance_uid and header.sop_instance_uid != sop_instance_uid:
        raise IdentifierError("SOP Instance UID differs from the announced one")
    if sop_class_uid and header.sop_class_uid != sop_class_uid:
        raise IdentifierError("SOP Class UID differs from the announced one")
    return header


def _volume(exc: OSError) -> NoSpaceError | VolumeError:
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpaceError("out of space, try again later")
    return VolumeError("a write to the spool failed")
