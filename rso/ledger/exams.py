"""Exams in the ledger: rows to Structs and back, and the queries on them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority
from rso.core.names import search_key
from rso.ledger import Ledger, tables
from rso.ledger.rejected import rejected_in

__all__ = [
    "OPEN_STATUSES",
    "add_flags",
    "count_instances",
    "exam_by_id",
    "exam_by_number",
    "exam_from_row",
    "exams_by_ids",
    "insert_exam",
    "lock_exams",
    "name_key",
    "now",
    "number_issued",
    "open_since",
    "set_status",
]

OPEN_STATUSES = (
    ExamStatus.REQUESTED,
    ExamStatus.RECEIVING,
    ExamStatus.SETTLED,
    ExamStatus.DELIVERED,
)
_PRIORITIES = tuple(Priority)
_MOST_NAME_KEY = 400


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def name_key(name: str) -> str:
    """What a name is found by, as long as its column: some letters become several when folded."""
    return search_key(name)[:_MOST_NAME_KEY]


def exam_from_row(row: dict[str, Any]) -> Exam:
    """Build the core's exam from a row of ``exam``."""
    return Exam(
        id=row["id"],
        number=row["number"],
        facility=row["facility"],
        origin=Origin(row["origin"]),
        status=ExamStatus(row["status"]),
        patient=Patient(
            name=row["patient_name"],
            patient_id=row["patient_id"],
            issuer_of_patient_id=row["issuer_of_patient_id"],
            birth_date=row["birth_date"],
            sex=row["sex"],
        ),
        created_at=row["created_at"],
        accession_number=row["accession_number"],
        modality=row["modality"],
        body_part=row["body_part"],
        priority=_PRIORITIES[row["priority"]],
        expected_instances=row["expected_instances"],
        last_instance_at=row["last_instance_at"],
        flags=tuple(msgspec.json.decode(row["flags"], type=list[str])),
    )


async def insert_exam(
    ledger: Ledger,
    exam: Exam,
    *,
    due_at: datetime,
    request: dict[str, Any] | None = None,
    created_by: str = "",
) -> None:
    """Write a new exam that should be delivered by ``due_at``."""
    patient = exam.patient
    await ledger.insert_rows(
        tables.Exam,
        [
            {
                "id": exam.id,
                "number": exam.number,
                "facility": exam.facility,
                "origin": exam.origin.value,
                "status": exam.status.value,
                "priority": exam.priority.rank,
                "patient_name": patient.name,
                "patient_id": patient.patient_id,
                "issuer_of_patient_id": patient.issuer_of_patient_id,
                "birth_date": patient.birth_date,
                "sex": patient.sex,
                "name_key": name_key(patient.name),
                "accession_number": exam.accession_number,
                "modality": exam.modality,
                "body_part": exam.body_part,
                "request": msgspec.json.encode(request or {}).decode(),
                "flags": msgspec.json.encode(exam.flags).decode(),
                "expected_instances": exam.expected_instances,
                "instances": 0,
                "created_by": created_by,
                "owner": "",
                "created_at": exam.created_at,
                "updated_at": exam.created_at,
                "last_instance_at": None,
                "settled_at": None,
                "delivered_at": None,
                "due_at": due_at,
            }
        ],
    )


async def exam_by_number(
    ledger: Ledger, number: str, *, facilities: Sequence[str] | None = None
) -> Exam | None:
    """The exam with this number, within these facilities (``None`` means all)."""
    rows = await ledger.fetch("SELECT * FROM exam WHERE number = ?", number)
    exams = [exam_from_row(row) for row in rows]
    return next((e for e in exams if facilities is None or e.facility in facilities), None)


async def exam_by_id(ledger: Ledger, exam_id: str, *, lock: bool = False) -> Exam | None:
    """The exam with this key; ``lock``: as it stands, and so until the transaction ends."""
    if lock:
        await lock_exams(ledger, [exam_id])
    return (await exams_by_ids(ledger, [exam_id])).get(exam_id)


async def lock_exams(ledger: Ledger, ids: Sequence[str]) -> None:
    """Let nobody else change these exams until the transaction ends."""
    if ids and ledger.for_update:
        marks = ",".join("?" * len(ids))
        await ledger.fetch(
            f"SELECT id FROM exam WHERE id IN ({marks}) ORDER BY id{ledger.for_update}",  # noqa: S608
            *ids,
        )


async def exams_by_ids(ledger: Ledger, ids: Sequence[str]) -> dict[str, Exam]:
    """Exams by key; unknown keys are left out."""
    if not ids:
        return {}
    marks = ",".join("?" * len(ids))
    rows = await ledger.fetch(f"SELECT * FROM exam WHERE id IN ({marks})", *ids)  # noqa: S608
    return {row["id"]: exam_from_row(row) for row in rows}


async def number_issued(ledger: Ledger, number: str) -> str | None:
    """Facility code of the exam with this number, at whatever facility; else ``None``."""
    rows = await ledger.fetch("SELECT facility FROM exam WHERE number = ?", number)
    return rows[0]["facility"] if rows else None


async def set_status(ledger: Ledger, exam_id: str, status: ExamStatus) -> None:
    """Write a status and the time that belongs to it."""
    at = now()
    stamps = {ExamStatus.SETTLED: "settled_at", ExamStatus.DELIVERED: "delivered_at"}
    if status in stamps:
        column = stamps[status]
        await ledger.execute(
            f"UPDATE exam SET status = ?, {column} = ?, updated_at = ? WHERE id = ?",  # noqa: S608
            status.value,
            at,
            at,
            exam_id,
        )
    else:
        await ledger.execute(
            "UPDATE exam SET status = ?, updated_at = ? WHERE id = ?", status.value, at, exam_id
        )


async def add_flags(ledger: Ledger, exam: Exam, flags: Sequence[str]) -> None:
    """Add flags that the exam does not carry yet."""
    new = [flag for flag in flags if flag not in exam.flags]
    if new:
        await ledger.execute(
            "UPDATE exam SET flags = ?, updated_at = ? WHERE id = ?",
            msgspec.json.encode([*exam.flags, *new]).decode(),
            now(),
            exam.id,
        )


async def count_instances(ledger: Ledger, exam_id: str) -> int:
    """Count the exam's primary instances anew, write and return the number.

    Late ones that were rejected are none of it.
    """
    rows = await ledger.fetch(
        "SELECT count(*) AS n FROM instance i JOIN study s ON s.id = i.study"
        " WHERE s.exam = ? AND s.state IN ('matched', 'stopped') AND NOT i.conflict",
        exam_id,
    )
    count = int(rows[0]["n"]) - await rejected_in(ledger, exam_id)
    await ledger.execute("UPDATE exam SET instances = ? WHERE id = ?", count, exam_id)
    return count


def open_since(open_days: int) -> datetime:
    """Exams made before this are not open any more."""
    return now() - timedelta(days=open_days)
