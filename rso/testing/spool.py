"""A spool that remembers instead of storing, and refuses on request: for contract tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rso.core.errors import IntakeError, NoSpaceError
from rso.core.transport import Buffer, Provenance, Receipt, WriteAhead
from rso.dicom.header import scan_header
from rso.ledger import new_id

__all__ = ["RecordingSpool"]


class RecordingSpool:
    """Implements ``core.transport.Spool``.

    Attributes:
        fault: Raised instead of keeping the next instances, when set.
        kept: SOP Instance UID and dataset of what was kept, in order.
        aside: Bytes and reason of what went to quarantine.
    """

    def __init__(self) -> None:
        self.fault: IntakeError | None = None
        self.kept: list[tuple[str, bytes]] = []
        self.batches: list[Provenance] = []
        self.closed = 0
        self.alerts: list[tuple[str, dict[str, str]]] = []
        self.aside: list[tuple[bytes, str]] = []

    def open_batch(self, provenance: Provenance) -> "_Batch":
        """Begin a batch."""
        self.batches.append(provenance)
        return _Batch(self, provenance)

    def require_space(self, size: int) -> None:  # noqa: ARG002
        """There is room, unless the fault says otherwise."""
        if isinstance(self.fault, NoSpaceError):
            raise self.fault

    def alert(self, kind: str, facts: Mapping[str, str]) -> None:
        """Remember an alert."""
        self.alerts.append((kind, dict(facts)))


class _Batch:
    def __init__(self, spool: RecordingSpool, provenance: Provenance) -> None:
        self.id = new_id()
        self.provenance = provenance
        self._spool = spool

    def append(
        self,
        dataset: Sequence[Buffer],
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str = "",  # noqa: ARG002
        sop_instance_uid: str = "",  # noqa: ARG002
        ahead: WriteAhead | None = None,  # noqa: ARG002
    ) -> Receipt:
        data = b"".join(bytes(part) for part in dataset)
        header = scan_header(data, transfer_syntax_uid)
        if self._spool.fault is not None:
            raise self._spool.fault
        self._spool.kept.append((header.sop_instance_uid, data))
        return Receipt(record_id=new_id(), header=header, size=len(data))

    def ahead(
        self,
        *,
        transfer_syntax_uid: str,  # noqa: ARG002
        sop_class_uid: str = "",  # noqa: ARG002
        sop_instance_uid: str = "",  # noqa: ARG002
    ) -> "_Ahead":
        return _Ahead()

    def open(
        self,
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str = "",  # noqa: ARG002
        sop_instance_uid: str = "",  # noqa: ARG002
    ) -> "_Sink":
        return _Sink(self, transfer_syntax_uid)

    def set_aside(self, data: Buffer, reason: str) -> None:
        self._spool.aside.append((bytes(data), reason))

    def close(self) -> None:
        self._spool.closed += 1


class _Ahead:
    def write(self, so_far: Buffer) -> None:
        pass

    def forget(self) -> None:
        pass


class _Sink:
    def __init__(self, batch: _Batch, transfer_syntax_uid: str) -> None:
        self._batch, self._syntax = batch, transfer_syntax_uid
        self._data = bytearray()
        self.began = datetime.now(UTC)

    def write(self, data: Buffer) -> None:
        self._data += data

    def commit(self) -> Receipt:
        return self._batch.append([bytes(self._data)], transfer_syntax_uid=self._syntax)

    def abort(self) -> None:
        self._data = bytearray()
