"""Exams as they are shown by CLI and API: numbers and states, without patient data."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from rso.core.errors import ConfigError
from rso.core.exam import Exam, Priority
from rso.ledger import Ledger
from rso.ledger.deliveries import deliveries_of
from rso.ledger.exams import exam_by_number
from rso.ledger.newest import newest_exams

__all__ = ["DeliveryView", "ExamSummary", "ExamView", "StudyView", "list_exams", "view_exam"]


class ExamSummary(Struct, frozen=True, kw_only=True):
    """An exam in a list; the number without dashes."""

    exam_number: str
    status: str
    facility: str
    origin: str
    instances: int


class StudyView(Struct, frozen=True, kw_only=True):
    """One Study of an exam."""

    study_instance_uid: str
    state: str
    modality: str
    instances: int
    row: int


class DeliveryView(Struct, frozen=True, kw_only=True):
    """An exam's way to one destination; ``problems`` groups answers other than success."""

    destination: str
    state: str
    acknowledged: int
    total: int
    last_error: str
    problems: list[dict[str, Any]]


class ExamView(ExamSummary, frozen=True, kw_only=True):
    """An exam with its Studies and deliveries, without patient data."""

    priority: str
    flags: list[str]
    expected_instances: int | None
    created_at: datetime
    studies: list[StudyView]
    deliveries: list[DeliveryView]


async def list_exams(
    ledger: Ledger,
    *,
    status: str | None = None,
    facilities: Sequence[str] | None = None,
    facility: str | None = None,
    priority: Priority | None = None,
    after: str = "",
    until: str = "",
    limit: int | None = None,
) -> list[ExamSummary]:
    """Exams, newest first.

    Args:
        ledger: The ledger.
        status: Only in this status.
        facilities: Whose the caller may see; ``None`` means all.
        facility: Only of this one of them.
        priority: Only of this priority.
        after: The number of the last exam of the page before: only older ones.
        until: The number of the last exam of this page: it and those just before it.
        limit: At most so many; ``None``: all.

    Raises:
        ConfigError: ``after`` or ``until`` is the number of none that the caller may see.
    """
    marks = []
    for number in (after, until):
        mark = await exam_by_number(ledger, number, facilities=facilities) if number else None
        if number and mark is None:
            raise ConfigError("the cursor is not one of this list")
        marks.append(mark.id if mark else "")
    if facility is not None:
        facilities = [facility] if facilities is None or facility in facilities else []
    rows = await newest_exams(
        ledger,
        facilities,
        status=status or "",
        rank=priority.rank if priority else None,
        after=marks[0],
        until=marks[1],
        limit=limit,
    )
    return [
        ExamSummary(
            exam_number=row["number"],
            status=row["status"],
            facility=row["facility"],
            origin=row["origin"],
            instances=row["instances"],
        )
        for row in rows
    ]


async def view_exam(ledger: Ledger, exam: Exam) -> ExamView:
    """One exam with its Studies and deliveries."""
    studies = await ledger.fetch(
        "SELECT s.study_instance_uid, s.state, s.modality, s.table_row, (SELECT count(*) FROM"
        " instance i WHERE i.study = s.id AND NOT i.conflict) AS n FROM study s"
        " WHERE s.exam = ? ORDER BY s.created_at, s.id",
        exam.id,
    )
    counted = await ledger.fetch("SELECT instances FROM exam WHERE id = ?", exam.id)
    return ExamView(
        exam_number=exam.number,
        status=exam.status.value,
        facility=exam.facility,
        origin=exam.origin.value,
        instances=counted[0]["instances"],
        priority=exam.priority.value,
        flags=list(exam.flags),
        expected_instances=exam.expected_instances,
        created_at=exam.created_at,
        studies=[
            StudyView(
                study_instance_uid=row["study_instance_uid"],
                state=row["state"],
                modality=row["modality"],
                instances=row["n"],
                row=row["table_row"],
            )
            for row in studies
        ],
        deliveries=[await _delivery(ledger, row) for row in await deliveries_of(ledger, exam.id)],
    )


async def _delivery(ledger: Ledger, row: Mapping[str, Any]) -> DeliveryView:
    problems = await ledger.fetch(
        "SELECT state, code, reason, count(*) AS n FROM delivery_item WHERE delivery = ?"
        " AND code NOT IN ('', '0000') AND state <> 'cancelled'"
        " GROUP BY state, code, reason ORDER BY n DESC",
        row["id"],
    )
    destination = await ledger.fetch(
        "SELECT failures, last_error FROM destination WHERE code = ?", row["destination"]
    )
    failing = bool(destination and destination[0]["failures"])
    state = row["state"]
    if failing and state in {"pending", "sending"}:
        state = "waiting"
    return DeliveryView(
        destination=row["destination"],
        state=state,
        acknowledged=row["acknowledged"],
        total=row["total"],
        last_error=destination[0]["last_error"] if failing and state == "waiting" else "",
        problems=[
            {"state": p["state"], "code": p["code"], "reason": p["reason"], "instances": p["n"]}
            for p in problems
        ],
    )
