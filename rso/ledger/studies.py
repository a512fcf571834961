"""Studies in the ledger, and the exams that a Study might belong to.

A row of ``study`` is one Study *as one identity*: the same Study Instance UID that arrives with
another patient's header is a row of its own, so it can be held without touching the first.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from rso.core.exam import Exam, Patient
from rso.core.matching import Candidate, Decision, IncomingStudy, LinkedStudy, identity_key
from rso.core.transport import Kind
from rso.ledger import Ledger, new_id, tables
from rso.ledger.exams import OPEN_STATUSES, exam_from_row, lock_exams, name_key, now

__all__ = [
    "candidates_for",
    "incoming_from_row",
    "lock_exams_of",
    "lock_studies_of",
    "lock_study",
    "record_decision",
    "studies_by_ids",
    "upsert_studies",
]


def incoming_from_row(row: dict[str, Any]) -> IncomingStudy:
    """What the matcher sees of a row of ``study``."""
    return IncomingStudy(
        study_instance_uid=row["study_instance_uid"],
        patient=_patient(row),
        undecodable=row["undecodable"],
        accession_number=row["accession_number"],
        modality=row["modality"],
        body_part=row["body_part"],
        study_date=row["study_date"],
        kind=Kind(row["kind"]),
        bound_exam_number=row["exam_number"],
    )


def _patient(row: dict[str, Any]) -> Patient:
    return Patient(
        name=row["patient_name"],
        patient_id=row["patient_id"],
        issuer_of_patient_id=row["issuer_of_patient_id"],
        birth_date=row["birth_date"],
        sex=row["sex"],
    )


async def upsert_studies(
    ledger: Ledger,
    facility: str,
    studies: Sequence[tuple[IncomingStudy, str]],
    *,
    also: Sequence[str] = (),
) -> dict[tuple[str, str], dict[str, Any]]:
    """Make sure each (Study, description) has its row; rows by (Study UID, identity).

    They, and the same Studies under other identities, stay as they are until the transaction
    ends: who decides on one meanwhile sees the instances that it brings, or is seen by it. So do
    those with a Study Instance UID that is in ``also``.
    """
    at = now()
    wanted = {(s.study_instance_uid, identity_key(s)): (s, text) for s, text in studies}
    await ledger.insert_rows(
        tables.Study,
        [
            {
                "id": new_id(),
                "facility": facility,
                "study_instance_uid": study.study_instance_uid,
                "identity": identity,
                "exam": None,
                "state": "pending",
                "table_row": 0,
                "patient_name": study.patient.name,
                "patient_id": study.patient.patient_id,
                "issuer_of_patient_id": study.patient.issuer_of_patient_id,
                "birth_date": study.patient.birth_date,
                "sex": study.patient.sex,
                "undecodable": study.undecodable,
                "name_key": name_key(study.patient.name),
                "accession_number": study.accession_number,
                "modality": study.modality,
                "body_part": study.body_part,
                "study_date": study.study_date,
                "description": text,
                "kind": study.kind.value,
                "exam_number": study.bound_exam_number,
                "decision": "{}",
                "correct_identity": False,
                "created_at": at,
                "updated_at": at,
            }
            for (_, identity), (study, text) in sorted(wanted.items(), key=lambda w: w[0])
        ],
        on_conflict="nothing",
    )
    uids = sorted({*also, *(study_instance_uid for study_instance_uid, _ in wanted)})
    rows = await ledger.fetch(
        "SELECT * FROM study WHERE facility = ? AND study_instance_uid IN"  # noqa: S608
        f" ({','.join('?' * len(uids)) or 'NULL'}) ORDER BY id{ledger.for_update}",
        facility,
        *uids,
    )
    found = {(row["study_instance_uid"], row["identity"]): row for row in rows}
    return {key: found[key] for key in wanted}


async def studies_by_ids(ledger: Ledger, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of ``study`` by key."""
    if not ids:
        return []
    marks = ",".join("?" * len(ids))
    return await ledger.fetch(f"SELECT * FROM study WHERE id IN ({marks})", *ids)  # noqa: S608


async def lock_study(ledger: Ledger, study_id: str) -> dict[str, Any]:
    """A row of ``study``; it and its other identities stay so until the transaction ends."""
    rows = await ledger.fetch(_SAME_STUDIES.format("id = ?") + ledger.for_update, study_id)
    return {row["id"]: row for row in rows}[study_id]


async def lock_studies_of(ledger: Ledger, exam_id: str) -> None:
    """Let an exam's Studies, under whatever identity, stay so until the transaction ends.

    Lock them before the exam.
    """
    await ledger.fetch(_SAME_STUDIES.format("exam = ?") + ledger.for_update, exam_id)


async def lock_exams_of(ledger: Ledger, studies: Sequence[str]) -> None:
    """Let the exams that these Studies are in stay so until the transaction ends."""
    if studies and ledger.for_update:
        marks = ",".join("?" * len(studies))
        rows = await ledger.fetch(
            f"SELECT DISTINCT exam FROM study WHERE id IN ({marks}) AND exam IS NOT NULL",  # noqa: S608
            *studies,
        )
        await lock_exams(ledger, [row["exam"] for row in rows])


_SAME_STUDIES = (
    "SELECT * FROM study WHERE (facility, study_instance_uid) IN"
    " (SELECT facility, study_instance_uid FROM study WHERE {}) ORDER BY id"
)


async def candidates_for(
    ledger: Ledger,
    facility: str,
    study: IncomingStudy,
    *,
    number: str,
    open_after: datetime,
    own: str = "",
) -> list[Candidate]:
    """This facility's exams that share any identifier, or the birth date, with the Study.

    Args:
        ledger: The ledger; call inside the transaction that acts on the decision.
        facility: The facility that the channel authenticated; no other exam is looked at.
        study: What arrived.
        number: The exam number that its Patient ID or the bound upload names, or empty.
        open_after: Exams made before this are not open.
        own: Key of an exam that is a candidate whatever it shares, and open however old it is.
    """
    patient = study.patient
    clauses = ["id IN (SELECT exam FROM study WHERE facility = ? AND study_instance_uid = ?)"]
    values: list[Any] = [facility, study.study_instance_uid]
    numbers = [n for n in {number, study.bound_exam_number, study.accession_number} if n]
    if numbers:
        clauses.append(f"number IN ({','.join('?' * len(numbers))})")
        values += numbers
    if study.accession_number:
        clauses.append("accession_number = ?")
        values.append(study.accession_number)
    if patient.patient_id:
        clauses.append("patient_id = ?")
        clauses.append("id IN (SELECT exam FROM study WHERE facility = ? AND patient_id = ?)")
        values += [patient.patient_id, facility, patient.patient_id]
    if patient.birth_date:
        clauses.append("(birth_date = ? AND created_at > ?)")
        values += [patient.birth_date, open_after]
    if own:
        clauses.append("id = ?")
        values.append(own)
    rows = await ledger.fetch(
        f"SELECT * FROM exam WHERE facility = ? AND ({' OR '.join(clauses)})"  # noqa: S608
        f" ORDER BY id{ledger.for_update}",
        facility,
        *values,
    )
    exams = [exam_from_row(row) for row in rows]
    linked = await _linked(ledger, exams)
    return [
        Candidate(exam=e, open=_is_open(e, open_after, own), linked=tuple(linked.get(e.id, ())))
        for e in exams
    ]


def _is_open(exam: Exam, open_after: datetime, own: str) -> bool:
    return exam.status in OPEN_STATUSES and (exam.id == own or exam.created_at > open_after)


async def _linked(ledger: Ledger, exams: Sequence[Exam]) -> dict[str, list[LinkedStudy]]:
    if not exams:
        return {}
    marks = ",".join("?" * len(exams))
    rows = await ledger.fetch(
        "SELECT * FROM study WHERE state IN ('matched', 'stopped')"  # noqa: S608
        f" AND exam IN ({marks})",
        *[e.id for e in exams],
    )
    linked: dict[str, list[LinkedStudy]] = {}
    for row in rows:
        linked.setdefault(row["exam"], []).append(
            LinkedStudy(
                study_instance_uid=row["study_instance_uid"],
                patient=_patient(row),
                accession_number=row["accession_number"],
            )
        )
    return linked


async def record_decision(
    ledger: Ledger,
    study_id: str,
    decision: Decision,
    *,
    state: str,
    exam_id: str | None,
) -> None:
    """Write what was decided on a Study, with its evidence."""
    await ledger.execute(
        "UPDATE study SET state = ?, exam = ?, table_row = ?, decision = ?, updated_at = ?"
        " WHERE id = ?",
        state,
        exam_id,
        decision.row,
        msgspec.json.encode(decision).decode(),
        now(),
        study_id,
    )
