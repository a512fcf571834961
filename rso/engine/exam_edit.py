"""Editing an exam: changed demographics are compared with its images again."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import structs

from rso.core.errors import StaleError, StateError
from rso.core.exam import Exam, Patient, Priority
from rso.core.matching import Action
from rso.core.names import read_name
from rso.engine.context import Engine
from rso.engine.exams import note_exam
from rso.engine.matcher import decide_study, match_study
from rso.engine.recall import unlink_study
from rso.engine.recall_notice import tell_recall
from rso.engine.requests import UNKNOWN_PATIENT, change_request
from rso.engine.router import stop_study
from rso.engine.settle import conclude
from rso.engine.turnaround import due_at
from rso.ledger import Ledger
from rso.ledger.exams import exam_by_id, name_key, now
from rso.ledger.leases import end_leases
from rso.ledger.studies import lock_studies_of

__all__ = ["edit_exam"]


async def edit_exam(
    engine: Engine,
    exam: Exam,
    *,
    actor: str,
    patient: Patient | Mapping[str, str] | None = None,
    priority: Priority | None = None,
    modality: str | None = None,
    body_part: str | None = None,
    accession_number: str | None = None,
    request: Mapping[str, str] | None = None,
    still: Callable[[Exam], Awaitable[bool]] | None = None,
) -> Exam:
    """Change an exam; changed demographics match all its Studies anew.

    ``patient`` is the whole patient, or the fields that change; ``request`` holds fields of
    ``engine.requests.FIELDS``; those it does not name stay. ``still`` is asked, under the exam's
    lock, whether it stands as whoever changes it saw it.

    Raises:
        StaleError: It does not.
        StateError: Another patient for an exam that ended: its images could not come back to it.
    """
    ledger = engine.ledger
    async with ledger.transaction():
        await lock_studies_of(ledger, exam.id)
        # As it stands: what somebody else changes at the same time stays.
        exam = await exam_by_id(ledger, exam.id, lock=True) or exam
        if still is not None and not await still(exam):
            raise StaleError("somebody changed the exam meanwhile")
        changed = _changed(exam, patient, priority, modality, body_part, accession_number)
        if exam.status.ended and changed.patient != exam.patient:
            raise StateError(f"the exam is {exam.status}: its patient is not changed any more")
        await _update(engine, changed)
        fields = [f for f in exam.__struct_fields__ if _differs(exam, changed, f)]
        if request is not None:
            fields += await change_request(ledger, exam, request)
        if not fields:
            return exam
        if changed.patient != exam.patient:
            await _rematch(engine, changed)
            await end_leases(ledger, exam.id)  # what a courier has ready says who it was before
        await note_exam(ledger, exam, actor, "exam edited", fields=" ".join(fields))
    engine.work.set()
    return changed


def _changed(
    exam: Exam,
    patient: Patient | Mapping[str, str] | None,
    priority: Priority | None,
    modality: str | None,
    body_part: str | None,
    accession_number: str | None,
) -> Exam:
    if not isinstance(patient, Patient):
        patient = structs.replace(exam.patient, **(patient or {}))
    changed = structs.replace(
        exam,
        patient=patient,
        priority=exam.priority if priority is None else priority,
        modality=exam.modality if modality is None else modality,
        body_part=exam.body_part if body_part is None else body_part,
        accession_number=exam.accession_number if accession_number is None else accession_number,
    )
    if any(read_name(changed.patient.name)):
        flags = tuple(flag for flag in exam.flags if flag != UNKNOWN_PATIENT)
        changed = structs.replace(changed, flags=flags)
    return changed


def _differs(one: Exam, other: Exam, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


async def _update(engine: Engine, exam: Exam) -> None:
    ledger, patient = engine.ledger, exam.patient
    await ledger.execute(
        "UPDATE exam SET patient_name = ?, patient_id = ?, issuer_of_patient_id = ?,"
        " birth_date = ?, sex = ?, name_key = ?, priority = ?, modality = ?, body_part = ?,"
        " accession_number = ?, due_at = ?, flags = ?, updated_at = ? WHERE id = ?",
        patient.name,
        patient.patient_id,
        patient.issuer_of_patient_id,
        patient.birth_date,
        patient.sex,
        name_key(patient.name),
        exam.priority.rank,
        exam.modality,
        exam.body_part,
        exam.accession_number,
        await due_at(engine, exam.facility, exam.priority, exam.created_at),
        msgspec.json.encode(exam.flags).decode(),
        now(),
        exam.id,
    )
    await ledger.execute(
        "UPDATE delivery SET priority = ? WHERE exam = ?", exam.priority.rank, exam.id
    )
    await ledger.execute(
        "UPDATE delivery_item SET priority = ? WHERE state = 'pending' AND delivery IN"
        " (SELECT id FROM delivery WHERE exam = ?)",
        exam.priority.rank,
        exam.id,
    )


async def _rematch(engine: Engine, exam: Exam) -> None:
    """Take the decision on each of the exam's own Studies again.

    None of them speaks for another until the table has let it stay: a part of a Study would
    find the other part at home already, and a Patient ID be known from what came with it. The
    exam itself takes them back however old it is: they are nothing new.
    """
    ledger = engine.ledger
    asked = await ledger.fetch(
        "SELECT * FROM study WHERE exam = ? AND state IN ('matched', 'stopped')"
        " ORDER BY created_at, id",
        exam.id,
    )
    for row in asked:
        await _set_exam(ledger, row["id"], None)
    while stays := [row for row in asked if await _stays(engine, exam, row)]:
        asked = [row for row in asked if row not in stays]
    for row in asked:
        sent = await unlink_study(engine, row, state="pending")
        await match_study(engine, row, own=exam.id)
        if sent:
            await _tell(engine, exam, row["id"], sent)
        if row["state"] == "stopped":  # the question that stopped it is open still
            await stop_study(engine, row["facility"], row["study_instance_uid"])
    if asked:
        await conclude(engine, [exam.id])  # what stays may be delivered already


async def _tell(engine: Engine, exam: Exam, study_id: str, sent: int) -> None:
    """Who reads for the exam has images of it that are somebody else's: as with a recall."""
    holds = await engine.ledger.fetch(
        "SELECT id FROM hold WHERE study = ? AND state = 'open' AND kind = 'study'"
        " ORDER BY opened_at DESC LIMIT 1",
        study_id,
    )
    hold = str(holds[0]["id"]) if holds else study_id
    await tell_recall(engine, exam, hold, sent, code="edit")


async def _stays(engine: Engine, exam: Exam, row: Mapping[str, Any]) -> bool:
    """Whether the table leaves a Study in its exam; if so it is linked again."""
    decision, _ = await decide_study(engine, row, own=exam.id)
    if decision.action is not Action.AUTO or decision.exam_number != exam.number:
        return False
    await _set_exam(engine.ledger, row["id"], exam.id)
    return True


async def _set_exam(ledger: Ledger, study_id: str, exam_id: str | None) -> None:
    await ledger.execute("UPDATE study SET exam = ? WHERE id = ?", exam_id, study_id)
