"""From a decision to the ledger: a Study joins an exam, makes one, or waits for a person.

Everything here runs inside the caller's transaction; on PostgreSQL the candidate exams are locked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rso.core.errors import ExamError
from rso.core.exam import Exam, ExamStatus, Origin, Patient, advance
from rso.core.matching import Action, Candidate, Decision, IncomingStudy, decide
from rso.core.number import parse_number
from rso.engine.context import Engine
from rso.engine.outbox import emit
from rso.engine.router import route_study, stop_study
from rso.engine.turnaround import due_at
from rso.ledger import Ledger, audit, new_id
from rso.ledger.exams import (
    OPEN_STATUSES,
    add_flags,
    count_instances,
    exam_by_id,
    insert_exam,
    now,
    number_issued,
    open_since,
)
from rso.ledger.holds import open_hold, question_open
from rso.ledger.rejected import LATE, mark_others
from rso.ledger.studies import candidates_for, incoming_from_row, record_decision

__all__ = [
    "create_from_study",
    "decide_study",
    "hold_conflicts",
    "hold_late",
    "link_study",
    "match_study",
    "new_exam_number",
    "take_study",
]

_MOST_NUMBERS = 100  # made, before it is plain that a plugin has no free one


async def match_study(engine: Engine, row: Mapping[str, Any], *, own: str = "") -> Decision:
    """Decide on a Study (a row of ``study``) and act on the decision.

    Its instances must be in the ledger already. ``own``: as with ``decide_study``.
    """
    decision, candidates = await decide_study(engine, row, own=own)
    if decision.action is Action.HOLD:
        await _hold(engine, row, decision, candidates)
        return decision
    if decision.action is Action.CREATE:
        exam = await create_from_study(engine, row)
    else:
        exam = next(c.exam for c in candidates if c.exam.number == decision.exam_number)
    # While a part of the Study is in question, none of it is routed: this one waits with the rest.
    asked = await question_open(engine.ledger, row["facility"], row["study_instance_uid"])
    state = "stopped" if asked else "matched"
    await record_decision(engine.ledger, row["id"], decision, state=state, exam_id=exam.id)
    await add_flags(engine.ledger, exam, decision.flags)
    await link_study(engine, exam, row["id"])
    return decision


async def decide_study(
    engine: Engine, row: Mapping[str, Any], *, own: str = ""
) -> tuple[Decision, list[Candidate]]:
    """Ask the table, then every reviewing plugin; writes nothing.

    ``own`` is the key of the exam that the Study is in already, where it is asked whether it may
    stay: that exam is a candidate, and not too old for it.
    """
    ledger, facility = engine.ledger, row["facility"]
    study = incoming_from_row(dict(row))
    number = _number_in(study)
    candidates = await candidates_for(
        ledger,
        facility,
        study,
        number=number,
        open_after=open_since(engine.settings.intake.open_days),
        own=own,
    )
    owner = await number_issued(ledger, number) if number else None
    decision = decide(
        study,
        candidates,
        foreign_number=owner is not None and owner != facility,
        allow_empty_demographics=(await _facility_settings(ledger, facility)).get(
            "allow_empty_demographics", False
        ),
    )
    return engine.plugins.review_match(study, candidates, decision), candidates


def _number_in(study: IncomingStudy) -> str:
    if study.bound_exam_number:
        return study.bound_exam_number
    try:
        return parse_number(study.patient.patient_id)
    except ExamError:
        return ""


async def _facility_settings(ledger: Ledger, facility: str) -> dict[str, Any]:
    rows = await ledger.fetch("SELECT settings FROM facility WHERE code = ?", facility)
    return dict(msgspec.json.decode(rows[0]["settings"])) if rows else {}


async def _hold(
    engine: Engine, row: Mapping[str, Any], decision: Decision, candidates: list[Candidate]
) -> None:
    ledger = engine.ledger
    await record_decision(ledger, row["id"], decision, state="held", exam_id=None)
    if decision.stop_study:
        await stop_study(engine, row["facility"], row["study_instance_uid"], but=row["id"])
    hold_id = await open_hold(
        ledger,
        kind="study",
        facility=row["facility"],
        study=row["id"],
        row=decision.row,
        reason=decision.reason,
        alarm=decision.alarm,
        evidence=msgspec.to_builtins(decision),
    )
    if decision.security_alert:
        await audit.append(
            ledger,
            actor="matching",
            action="security alert",
            facility=row["facility"],
            facts={
                "reason": decision.reason,
                "row": str(decision.row),
                "study_instance_uid": row["study_instance_uid"],
            },
        )
    if hold_id:
        # The hook speaks of an exam where exactly one is suspected.
        suspects = [c.exam.id for c in candidates if c.exam.number in decision.suggestions]
        await emit(
            ledger,
            "study_held",
            exam=suspects[0] if len(suspects) == 1 else None,
            dedupe=f"study_held:{hold_id}",
            facts={"hold": hold_id, "reason": decision.reason},
        )


async def new_exam_number(engine: Engine, facility: str) -> str:
    """A number that no exam has or had.

    Raises:
        PluginError: A plugin failed to make one.
        ExamError: Every number that was made is taken.
    """
    for _ in range(_MOST_NUMBERS):
        number = engine.plugins.decide("rso_make_exam_number", str, facility=facility)
        if number and await number_issued(engine.ledger, number) is None:
            return number
    raise ExamError("no free exam number was made")


async def create_from_study(engine: Engine, row: Mapping[str, Any]) -> Exam:
    """Make an exam with the identity that a Study came with."""
    exam = Exam(
        id=new_id(),
        number=await new_exam_number(engine, row["facility"]),
        facility=row["facility"],
        origin=Origin.IMAGES,
        status=ExamStatus.REQUESTED,
        patient=Patient(
            name=row["patient_name"],
            patient_id=row["patient_id"],
            issuer_of_patient_id=row["issuer_of_patient_id"],
            birth_date=row["birth_date"],
            sex=row["sex"],
        ),
        created_at=now(),
        accession_number=row["accession_number"],
        modality=row["modality"],
        body_part=row["body_part"],
    )
    due = await due_at(engine, exam.facility, exam.priority, exam.created_at)
    await insert_exam(engine.ledger, exam, due_at=due, created_by=f"source:{row['kind']}")
    await emit(engine.ledger, "exam_created", exam=exam.id, dedupe=f"exam_created:{exam.id}")
    return exam


async def link_study(
    engine: Engine, exam: Exam, study_id: str, instances: Sequence[str] | None = None
) -> None:
    """Take a matched Study's instances into its exam and send them on their way.

    Those of a stopped one are counted, and wait.
    Called at the match (``instances`` is ``None``: all of them) and again with the keys of those
    that arrived later.
    """
    ledger, at = engine.ledger, now()
    exam = await exam_by_id(ledger, exam.id, lock=True) or exam
    status = advance(exam.status, ExamStatus.RECEIVING)
    await ledger.execute(
        "UPDATE exam SET status = ?, last_instance_at = ?, updated_at = ? WHERE id = ?",
        status.value,
        at,
        at,
        exam.id,
    )
    await count_instances(ledger, exam.id)
    await emit(ledger, "exam_matched", exam=exam.id, dedupe=f"exam_matched:{exam.id}:{study_id}")
    await hold_conflicts(engine, exam.facility, study_id)
    current = await exam_by_id(ledger, exam.id)
    if current is not None:
        await route_study(engine, current, study_id, instances)


async def take_study(
    engine: Engine, study_id: str, fresh: Sequence[str], *, again: bool = False
) -> None:
    """Match a Study, or let more instances (``fresh``) follow a match that stands.

    Those that came ``again`` may have been queued, and taken out of the queue, before.
    """
    ledger = engine.ledger
    row = (await ledger.fetch("SELECT * FROM study WHERE id = ?", study_id))[0]
    if row["state"] == "rejected":  # what did not come again stays so
        await mark_others(ledger, study_id, fresh, actor="matching", at=now())
    if row["state"] in {"pending", "rejected"}:
        await match_study(engine, row)
        return
    if row["state"] == "held":
        return  # they wait with their Study
    exam = await exam_by_id(ledger, row["exam"], lock=True)
    if exam is not None and exam.status in OPEN_STATUSES:
        if fresh:
            await link_study(engine, exam, study_id, None if again else fresh)
            return
    elif fresh and row["state"] == "matched":
        await hold_late(ledger, study_id, fresh)
    await hold_conflicts(engine, row["facility"], study_id)


async def hold_late(ledger: Ledger, study_id: str, instances: Sequence[str]) -> None:
    """Ask a person about these, and more that follows, of a Study whose exam ended."""
    first = await ledger.fetch(
        f"SELECT received_at FROM instance WHERE id IN ({','.join('?' * len(instances))})"  # noqa: S608
        " ORDER BY received_at LIMIT 1",
        *instances,
    )
    rows = await ledger.fetch(
        "SELECT s.facility, e.number FROM study s LEFT JOIN exam e ON e.id = s.exam WHERE s.id = ?",
        study_id,
    )
    await open_hold(
        ledger,
        kind="study",
        facility=rows[0]["facility"],
        study=study_id,
        row=1,
        reason=LATE,
        evidence={"exam_number": rows[0]["number"] or "", "since": first[0]["received_at"]},
    )


async def hold_conflicts(engine: Engine, facility: str, study_id: str) -> None:
    """Hold each instance whose SOP Instance UID is already kept with other bytes.

    Once, unless it comes again after that was decided. Told is that once for a Study and batch.
    """
    ledger, reason = engine.ledger, "same instance, other content"
    rows = await ledger.fetch(
        "SELECT i.id, i.sop_instance_uid, i.batch, s.exam FROM instance i"
        " JOIN study s ON s.id = i.study WHERE i.study = ? AND i.conflict"
        " AND NOT EXISTS (SELECT 1 FROM hold h WHERE h.instance = i.id AND (h.state = 'open'"
        " OR h.resolved_at >= i.received_at)) ORDER BY i.id",
        study_id,
    )
    told: set[str] = set()
    for row in rows:
        hold = await open_hold(
            ledger,
            kind="instance",
            facility=facility,
            study=study_id,
            instance=row["id"],
            reason=reason,
            evidence={"sop_instance_uid": row["sop_instance_uid"]},
        )
        if hold and row["batch"] not in told:
            told.add(row["batch"])
            await emit(
                ledger,
                "study_held",
                exam=row["exam"],
                dedupe=f"study_held:{study_id}:{row['batch']}",
                facts={"hold": hold, "reason": reason},
            )
