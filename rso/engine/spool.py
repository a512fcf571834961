"""The spool: the one way in. What it has acknowledged is on disk."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import structs

from rso.core.errors import (
    IdentifierError,
    NoSpaceError,
    NotDicomError,
    VolumeError,
)
from rso.core.header import Header
from rso.core.transport import Buffer, Provenance, Receipt, WriteAhead
from rso.dicom.elements import is_uid
from rso.dicom.header import scan_beginning, scan_header
from rso.dicom.part10 import build_file_meta
from rso.engine.quarantine import Quarantine
from rso.engine.quotas import Quotas
from rso.engine.spool_ahead import Announced, LogAhead
from rso.engine.spool_log import Draft, SegmentLog
from rso.engine.spool_segment import (
    HEAD,
    Body,
    InstanceMeta,
    OpenRecord,
    RecordType,
    Segment,
    StoredProvenance,
    encode_record,
)
from rso.engine.spool_sink import LogSink
from rso.ledger import new_id

__all__ = ["LogBatch", "LogSpool"]

_LARGE = 12 << 20  # above this a dataset gets a file of its own
_MOST_PIECES = 512  # the system gathers at most 1024 in one write


class LogSpool:
    """A write-ahead log in one folder, for one receiving process."""

    def __init__(self, folder: Path, *, large: int = _LARGE, quotas: Quotas | None = None) -> None:
        self.log = SegmentLog(folder)
        self.quotas = quotas
        self.large = min(large, self.log.files.size // 2)
        self.quarantine = Quarantine(folder.parent.parent / "quarantine", self.log.space.has_plenty)

    def open_batch(self, provenance: Provenance) -> "LogBatch":
        """Begin a batch; its provenance becomes durable with its first instance."""
        return LogBatch(self, provenance)

    def require_space(self, size: int) -> None:
        """Raise NoSpaceError unless ``size`` more bytes fit above the low-water mark."""
        self.log.space.require(size)

    def alert(self, kind: str, facts: Mapping[str, str]) -> None:
        """Note a security-relevant event for the audit; facts hold no patient data."""
        body = Body(self.log.segment, msgspec.json.encode([kind, dict(facts)]))
        self.log.append(lambda segment: [encode_record(RecordType.ALERT, segment, body)])

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
        self._noted_in: Segment | None = None  # the segment that holds this batch's record
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
        ahead: WriteAhead | None = None,
    ) -> Receipt:
        """Keep one dataset and return once it is durable; see ``core.transport.Batch``."""
        announced = Announced(transfer_syntax_uid, sop_class_uid, sop_instance_uid)
        size = sum(map(len, dataset))
        if size > self._spool.large:
            sink = LogSink(self, self._spool, announced)
            for part in dataset:
                sink.write(part)
            return sink.commit()
        self._spool.log.space.require(size)
        if len(dataset) > _MOST_PIECES:
            dataset = [b"".join(dataset)]
        with self._counted(size):
            return self._append(dataset, size, announced, ahead)

    def _append(
        self, dataset: Sequence[Buffer], size: int, announced: Announced, ahead: WriteAhead | None
    ) -> Receipt:
        draft = None
        record = ahead.finish(dataset) if isinstance(ahead, LogAhead) else None
        if record is not None and isinstance(ahead, LogAhead):
            draft = ahead.draft
        else:
            record = self.record(self._scan_pieces(dataset, size, announced))
            for part in dataset:
                record.body.add(part)
        self._write(RecordType.INSTANCE, record, draft)
        return Receipt(record_id=record.record_id, header=record.header, size=size)

    @contextlib.contextmanager
    def _counted(self, size: int) -> Iterator[None]:
        """Count an instance against the quotas, unless it is not kept after all."""
        quotas = self._spool.quotas
        if quotas is None:
            yield
            return
        undo = quotas.take(self.provenance, size)
        try:
            yield
        except BaseException:
            undo()
            raise

    def ahead(
        self, *, transfer_syntax_uid: str, sop_class_uid: str = "", sop_instance_uid: str = ""
    ) -> WriteAhead:
        """Begin a dataset that is written while it comes in; see ``core.transport.Batch``."""
        announced = Announced(transfer_syntax_uid, sop_class_uid, sop_instance_uid)
        return LogAhead(self, self._spool.log, announced)

    def open(
        self, *, transfer_syntax_uid: str, sop_class_uid: str = "", sop_instance_uid: str = ""
    ) -> LogSink:
        """Begin a dataset that arrives in parts; small ones stay in memory until committed."""
        announced = Announced(transfer_syntax_uid, sop_class_uid, sop_instance_uid)
        return LogSink(self, self._spool, announced)

    def _scan_pieces(self, dataset: Sequence[Buffer], size: int, announced: Announced) -> Header:
        """Scan the first piece; only where that is not enough are all of them joined."""
        if len(dataset) < 2:
            return self.scan(dataset[0] if dataset else b"", announced)
        header = self.scan_first(dataset[0], announced, size)
        return header or self.scan(b"".join(dataset), announced)

    def scan(self, data: Buffer, announced: Announced, *, total: int | None = None) -> Header:
        """Scan and check a header; what is refused leaves a copy in quarantine."""
        try:
            header = scan_header(data, announced.transfer_syntax_uid, total=total)
            return _agreed(header, announced)
        except (NotDicomError, IdentifierError) as exc:
            self._spool.quarantine.keep(data, str(exc), self.provenance)
            raise

    def scan_first(self, data: Buffer, announced: Announced, total: int) -> Header | None:
        """The header, if the first bytes hold all of it and nothing is wrong with it."""
        with contextlib.suppress(NotDicomError, IdentifierError):
            return _agreed(scan_beginning(data, announced.transfer_syntax_uid, total), announced)
        return None

    def record(self, header: Header) -> OpenRecord:
        """An instance's record up to its dataset."""
        file_meta = self.file_meta(header)
        said = InstanceMeta(
            header=header, dataset_offset=len(file_meta), received_at=datetime.now(UTC)
        )
        body = Body(self._spool.log.segment, msgspec.msgpack.encode(said), [file_meta])
        return OpenRecord(new_id(), header, body)

    def lead(self, record: OpenRecord) -> int:
        """How many bytes stand in the log before what is added to a record from now on."""
        noted = self._noted_in == self._spool.log.segment
        return (0 if noted else HEAD + len(self._stored)) + HEAD + record.body.length

    def file_meta(self, header: Header) -> bytes:
        """Group 0002 of an instance, with where it came from."""
        return build_file_meta(
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax_uid=header.transfer_syntax_uid,
            source_ae_title=self.provenance.calling_ae_title,
            private_information=self._stored,
        )

    def note_large(
        self, header: Header, file: Path, record_id: str, dataset_offset: int, size: int
    ) -> None:
        """Write the record of an instance that has a durable file of its own."""
        said = InstanceMeta(
            header=header,
            dataset_offset=dataset_offset,
            received_at=datetime.now(UTC),
            size=size,
            file=file.name,
        )
        body = Body(self._spool.log.segment, msgspec.msgpack.encode(said))
        with self._counted(size):
            self._write(RecordType.LARGE, OpenRecord(record_id, header, body))

    def _write(self, kind: RecordType, record: OpenRecord, draft: Draft | None = None) -> None:
        def records(segment: Segment) -> list[list[Buffer]]:
            made = []
            if self._noted_in != segment:
                stored = Body(segment, self._stored)
                made.append(encode_record(RecordType.BATCH, segment, stored, batch_id=self.id))
                self._noted_in = segment
            made.append(
                encode_record(
                    kind, segment, record.body, record_id=record.record_id, batch_id=self.id
                )
            )
            return made

        try:
            self._spool.log.append(records, draft)
        except (NoSpaceError, VolumeError):
            self._noted_in = None
            raise
        self._used = True

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


def _agreed(header: Header, announced: Announced) -> Header:
    """The header if it says what the sender announced; completed by that where it says nothing."""
    _, sop_class_uid, sop_instance_uid = announced
    if not header.sop_class_uid:
        if not is_uid(sop_class_uid):
            raise NotDicomError("element 00080016 holds no UID")
        header = structs.replace(header, sop_class_uid=sop_class_uid)
    if sop_instance_uid and header.sop_instance_uid != sop_instance_uid:
        raise IdentifierError("SOP Instance UID differs from the announced one")
    if sop_class_uid and header.sop_class_uid != sop_class_uid:
        raise IdentifierError("SOP Class UID differs from the announced one")
    return header
