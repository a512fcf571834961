"""What leaves: an instance's own bytes, or with the header that its destination asks for."""

from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from rso.core.coercion import Coercion
from rso.core.egress import coercion_for, default_egress
from rso.core.errors import PermanentTransportError
from rso.core.exam import Exam
from rso.core.routing import Destination
from rso.core.transport import Outgoing, Piece
from rso.dicom.coerce import splice
from rso.dicom.header import scan_header
from rso.dicom.mapping import mapped
from rso.engine.context import Engine
from rso.ledger.exams import exams_by_ids
from rso.ledger.studies import studies_by_ids

__all__ = ["Parcel", "Preparer"]


class Parcel(Struct, frozen=True, kw_only=True):
    """One leased item with all that sending it needs."""

    item: str
    delivery: str
    instance: str
    attempts: int
    priority: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    offset: int
    size: int
    exam: Exam
    correct: bool

    @property
    def pair(self) -> tuple[str, str]:
        """The presentation context it needs: SOP Class and Transfer Syntax."""
        return self.sop_class_uid, self.transfer_syntax_uid


class Preparer:
    """Makes parcels for one destination and opens them when they are sent."""

    def __init__(self, engine: Engine, destination: Destination) -> None:
        self._engine = engine
        self._destination = destination
        self._issuers: dict[str, str] = {}

    async def load(self) -> None:
        """Read which facilities the destination serves; decides the default egress mode."""
        rows = await self._engine.ledger.fetch(
            "SELECT DISTINCT f.code, f.issuer_of_patient_id FROM attachment a"
            " JOIN facility f ON f.code = a.facility WHERE a.radiologist = ?",
            self._destination.radiologist,
        )
        self._issuers = {row["code"]: row["issuer_of_patient_id"] for row in rows}
        if not self._destination.egress:
            mode = default_egress(len(rows))
            self._destination = structs.replace(self._destination, egress=mode)

    async def parcels(self, rows: list[dict[str, Any]]) -> list[Parcel]:
        """Claimed rows of ``delivery_item`` as parcels, in the same order."""
        ledger = self._engine.ledger
        exams = await exams_by_ids(ledger, sorted({row["exam"] for row in rows}))
        studies = await studies_by_ids(ledger, sorted({row["study"] for row in rows}))
        correct = {row["id"]: bool(row["correct_identity"]) for row in studies}
        return [
            Parcel(
                item=row["item"],
                delivery=row["delivery"],
                instance=row["instance"],
                attempts=row["attempts"],
                priority=row["priority"],
                sop_class_uid=row["sop_class_uid"],
                sop_instance_uid=row["sop_instance_uid"],
                transfer_syntax_uid=row["transfer_syntax_uid"],
                path=self._engine.archive.path(row["instance"]),
                offset=row["dataset_offset"],
                size=row["size"],
                exam=exams[row["exam"]],
                correct=correct[row["study"]],
            )
            for row in rows
        ]

    def outgoing(self, parcel: Parcel) -> Outgoing:
        """Open one parcel; blocks on the disk.

        Raises:
            RsoError: The identity cannot be written into this instance's header, or the archive
                file is shorter than it was.
            OSError: The archive file cannot be read.
        """
        # Before a destination is asked for anything: a file that went is no fault of its link.
        if parcel.path.stat().st_size < parcel.offset + parcel.size:
            raise PermanentTransportError("its archive file is cut short")
        whole = Piece(path=parcel.path, offset=parcel.offset, length=parcel.size)
        pieces: tuple[bytes | Piece, ...] = (whole,)
        if self._destination.egress != "passthrough" or parcel.correct or self._has_coercers():
            pieces = self._coerced(parcel, whole)
        return Outgoing(
            sop_class_uid=parcel.sop_class_uid,
            sop_instance_uid=parcel.sop_instance_uid,
            transfer_syntax_uid=parcel.transfer_syntax_uid,
            pieces=pieces,
        )

    def _has_coercers(self) -> bool:
        return bool(self._engine.plugins.calls("rso_coerce"))

    def _coerced(self, parcel: Parcel, whole: Piece) -> tuple[bytes | Piece, ...]:
        with (
            mapped(parcel.path) as view,
            view[whole.offset : whole.offset + whole.length] as dataset,
        ):
            header = scan_header(dataset, parcel.transfer_syntax_uid)
            coercion = self._engine.plugins.decide(
                "rso_coerce", Coercion, header=header, destination=self._destination
            )
            if coercion is None or parcel.correct:
                coercion = coercion_for(
                    parcel.exam,
                    self._issuers.get(parcel.exam.facility, ""),
                    header,
                    self._destination.egress,
                    correct=parcel.correct,
                )
            if coercion is None:
                return (whole,)
            leading, resume = splice(
                dataset, parcel.transfer_syntax_uid, coercion, total=whole.length
            )
        rest = structs.replace(whole, offset=whole.offset + resume, length=whole.length - resume)
        return leading, rest
