"""What people and programs do with exams: the services behind CLI, pages and API."""

from collections.abc import Mapping, Sequence
from typing import Any

from rso.core.errors import ExamError, StateError
from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority, advance
from rso.core.number import parse_number
from rso.engine.context import Engine
from rso.engine.exam_views import ExamView, list_exams, view_exam
from rso.engine.matcher import new_exam_number
from rso.engine.outbox import emit
from rso.engine.turnaround import due_at
from rso.ledger import Ledger, audit, new_id
from rso.ledger.deliveries import deliveries_of, stop_items
from rso.ledger.exams import exam_by_id, exam_by_number, insert_exam, now, set_status

__all__ = [
    "cancel_exam",
    "close_exam",
    "complete_exam",
    "create_exam",
    "find_exam",
    "list_exams",
    "note_exam",
    "show_exam",
]


async def find_exam(
    ledger: Ledger,
    number: str,
    *,
    facilities: Sequence[str] | None = None,
    lock: bool = False,
) -> Exam:
    """The exam with this number as a person writes it.

    ``lock``: as it stands, and so until the transaction ends.

    Raises:
        ExamError: Not a number, or no such exam within ``facilities``.
    """
    plain = parse_number(number)
    exam = await exam_by_number(ledger, plain, facilities=facilities)
    if exam is None:
        raise ExamError(f"no exam has the number {plain}")
    return (await exam_by_id(ledger, exam.id, lock=True) or exam) if lock else exam


async def show_exam(
    ledger: Ledger, number: str, *, facilities: Sequence[str] | None = None
) -> ExamView:
    """One exam with its Studies and deliveries.

    Raises:
        ExamError: No such exam within ``facilities``.
    """
    return await view_exam(ledger, await find_exam(ledger, number, facilities=facilities))


async def create_exam(
    engine: Engine,
    *,
    facility: str,
    patient: Patient,
    priority: Priority = Priority.ROUTINE,
    modality: str = "",
    body_part: str = "",
    accession_number: str = "",
    request: Mapping[str, Any] | None = None,
    flags: tuple[str, ...] = (),
    actor: str,
) -> Exam:
    """Create an exam that a person requests; RSO makes its number.

    Raises:
        ExamError: The facility is unknown.
    """
    ledger = engine.ledger
    async with ledger.transaction():
        rows = await ledger.fetch(
            "SELECT issuer_of_patient_id FROM facility WHERE code = ?", facility
        )
        if not rows:
            raise ExamError(f"no facility has the code {facility}")
        exam = Exam(
            id=new_id(),
            number=await new_exam_number(engine, facility),
            facility=facility,
            origin=Origin.REQUEST,
            status=ExamStatus.REQUESTED,
            patient=patient,
            created_at=now(),
            accession_number=accession_number,
            modality=modality.upper(),  # as DICOM has it, and routes compare it
            body_part=body_part,
            priority=priority,
            flags=flags,
        )
        due = await due_at(engine, facility, priority, exam.created_at)
        await insert_exam(ledger, exam, due_at=due, request=dict(request or {}), created_by=actor)
        await note_exam(ledger, exam, actor, "exam created", origin=exam.origin.value)
        await emit(ledger, "exam_created", exam=exam.id, dedupe=f"exam_created:{exam.id}")
    return exam


async def note_exam(ledger: Ledger, exam: Exam, actor: str, action: str, **facts: str) -> None:
    """Write into the audit what somebody did with an exam; facts hold no patient data."""
    await audit.append(
        ledger,
        actor=actor,
        action=action,
        facility=exam.facility,
        exam=exam.number,
        facts=facts,
    )


async def complete_exam(
    engine: Engine, exam: Exam, *, actor: str, expected: int | None = None
) -> None:
    """Say how many instances the exam has: ``expected``, or what is here now (``None`` or 0).

    Raises:
        StateError: It has ended, or nothing is here and no number is given.
    """
    ledger = engine.ledger
    async with ledger.transaction():
        current = await exam_by_id(ledger, exam.id, lock=True) or exam
        if current.status.ended:
            raise StateError(f"the exam is {current.status}: it is not completed any more")
        if not expected:
            rows = await ledger.fetch("SELECT instances FROM exam WHERE id = ?", exam.id)
            expected = int(rows[0]["instances"])
        if not expected:
            raise StateError("the exam has no images yet: say how many there will be")
        await ledger.execute(
            "UPDATE exam SET expected_instances = ?, updated_at = ? WHERE id = ?",
            expected,
            now(),
            exam.id,
        )
        await note_exam(ledger, exam, actor, "exam complete", instances=str(expected))


async def cancel_exam(engine: Engine, exam: Exam, *, actor: str, reason: str) -> None:
    """Cancel an exam: nothing more is sent; what is kept stays kept.

    Raises:
        ExamError: It is delivered or closed already.
    """
    await _end(engine, exam, ExamStatus.CANCELLED, "exam cancelled", actor=actor, reason=reason)


async def close_exam(engine: Engine, exam: Exam, *, actor: str, reason: str = "") -> None:
    """Close an exam that is done: later images of it are held.

    Raises:
        ExamError: It is not settled or delivered.
    """
    await _end(engine, exam, ExamStatus.CLOSED, "exam closed", actor=actor, reason=reason)


async def _end(
    engine: Engine, exam: Exam, status: ExamStatus, action: str, *, actor: str, reason: str
) -> None:
    ledger = engine.ledger
    async with ledger.transaction():
        current = await exam_by_id(ledger, exam.id, lock=True) or exam
        if current.status is status:
            return  # pressed twice
        advance(current.status, status)
        await set_status(ledger, exam.id, status)
        if status is ExamStatus.CANCELLED:
            for row in await deliveries_of(ledger, exam.id):
                await stop_items(ledger, delivery=row["id"], reason="the exam was cancelled")
        await note_exam(ledger, exam, actor, action, reason=reason)
