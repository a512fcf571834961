"""Holds: a person decides what the table would not."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from rso.core.errors import ExamError, MatchingError
from rso.core.exam import Exam, ExamStatus
from rso.core.matching import Verdict, compare
from rso.core.number import parse_number
from rso.engine.context import Engine
from rso.engine.exams import find_exam, note_exam
from rso.engine.give_way import give_way, leave_behind, lock_rivals
from rso.engine.matcher import create_from_study, link_study, take_study
from rso.engine.outbox import emit
from rso.engine.recall import unlink_study
from rso.engine.recall_notice import tell_recall
from rso.engine.resume import resume_study, send_rest
from rso.engine.router import NO_DESTINATION, route_study, stop_study
from rso.engine.settle import conclude
from rso.ledger import Ledger, audit
from rso.ledger.exams import exam_by_id, now, set_status
from rso.ledger.holds import (
    HoldRow,
    Place,
    close_hold,
    find_holds,
    hold_by_id,
    open_hold,
    question_open,
)
from rso.ledger.rejected import LATE
from rso.ledger.studies import incoming_from_row, lock_study

__all__ = [
    "HoldSummary",
    "create_from_hold",
    "list_holds",
    "recall_hold",
    "reject_hold",
    "release_hold",
    "show_hold",
]


class HoldSummary(Struct, frozen=True, kw_only=True):
    """A hold in a list, without patient data."""

    id: str
    kind: str
    row: int
    reason: str
    facility: str
    instances: int
    alarm: bool
    opened_at: Any
    suggestions: list[str]


def _summary(hold: HoldRow) -> HoldSummary:
    return HoldSummary(
        id=hold.id,
        kind=hold.kind,
        row=hold.row,
        reason=hold.reason,
        facility=hold.facility,
        instances=hold.instances,
        alarm=hold.alarm,
        opened_at=hold.opened_at,
        suggestions=list(hold.evidence.get("suggestions", [])),
    )


async def list_holds(
    ledger: Ledger,
    *,
    facilities: Sequence[str] | None = None,
    alarms_first: bool = False,
    after: Place | None = None,
    most: int | None = None,
) -> list[HoldSummary]:
    """What waits for a decision, oldest first, as ``find_holds`` finds it."""
    found = await find_holds(
        ledger, facilities=facilities, alarms_first=alarms_first, after=after, most=most
    )
    return [_summary(hold) for hold in found]


async def show_hold(
    ledger: Ledger, hold_id: str, *, facilities: Sequence[str] | None = None, lock: bool = False
) -> HoldRow:
    """One hold with its evidence; ``lock``: nobody else decides on it meanwhile.

    Raises:
        MatchingError: No such hold within ``facilities``.
    """
    hold = await hold_by_id(ledger, hold_id, lock=lock)
    if hold is None or (facilities is not None and hold.facility not in facilities):
        raise MatchingError(f"no hold has the id {hold_id}")
    return hold


async def _open(ledger: Ledger, hold_id: str, facilities: Sequence[str] | None) -> HoldRow:
    hold = await show_hold(ledger, hold_id, facilities=facilities, lock=True)
    if hold.state != "open":
        raise MatchingError(f"the hold is {hold.state} already")
    return hold


async def release_hold(
    engine: Engine,
    hold_id: str,
    number: str,
    *,
    reason: str,
    actor: str,
    identity: str = "exam",
    facilities: Sequence[str] | None = None,
) -> bool:
    """Let what is held join an exam; late images take the one they are of back from closed.

    Args:
        engine: The engine.
        hold_id: The hold.
        number: The exam's number.
        reason: Why this is right; kept with the hold.
        actor: Who decides.
        identity: Whose identity is right where they differ: ``exam`` (the instances leave with
            the exam's) or ``images`` (they leave as received).
        facilities: The facilities that the actor may act for; ``None`` means all.

    Returns:
        False when name and birth date both differ: a second person must release it too.

    Raises:
        MatchingError: The hold, the exam or the reason does not allow it.
        ExamError: No such exam.
    """
    if not reason.strip():
        raise MatchingError("a release needs a reason")
    if identity not in {"exam", "images"}:
        raise MatchingError("identity is either exam or images")
    ledger = engine.ledger
    async with ledger.transaction():
        hold = await _open(ledger, hold_id, facilities)
        study = await lock_study(ledger, hold.study)
        exam = await find_exam(ledger, number, facilities=[hold.facility], lock=True)
        reopens = exam.status is ExamStatus.CLOSED and _is_own(hold, study, exam)
        if exam.status.ended and not reopens:
            raise MatchingError(f"the exam is {exam.status}")
        verdict = compare(incoming_from_row(study), exam)
        choice = {"exam": exam.number, "identity": identity}
        if not await _second_person(ledger, hold, verdict, actor, choice, reason):
            return False
        if hold.kind == "instance":
            raise MatchingError(
                "an instance with other content than the one kept cannot join the exam; reject it"
            )
        differs = verdict.differs or not _names_exam(study["patient_id"], exam)
        await close_hold(
            ledger, hold.id, state="released", actor=actor, resolution=reason, exam=exam.id
        )
        if reopens:
            await set_status(ledger, exam.id, ExamStatus.RECEIVING)
            exam = structs.replace(exam, status=ExamStatus.RECEIVING)
        await _join(engine, hold, study, exam, correct=identity == "exam" and differs)
        if reopens:
            await note_exam(ledger, exam, actor, "exam reopened", hold=hold.id)
        await note_exam(
            ledger, exam, actor, "hold released", hold=hold.id, reason=reason, identity=identity
        )
    engine.work.set()
    return True


def _is_own(hold: HoldRow, study: Mapping[str, Any], exam: Exam) -> bool:
    """Whether an exam that ended is the one that late images are of."""
    named = {*hold.evidence.get("suggestions", []), hold.evidence.get("exam_number")}
    return study["exam"] == exam.id or (hold.row in {1, 3} and exam.number in named)


def _names_exam(patient_id: str, exam: Exam) -> bool:
    """Whether a Patient ID is the exam's own, or its number as people write it."""
    try:
        return patient_id == exam.patient.patient_id or parse_number(patient_id) == exam.number
    except ExamError:
        return False


async def _second_person(
    ledger: Ledger,
    hold: HoldRow,
    verdict: Verdict,
    actor: str,
    choice: dict[str, str],
    reason: str,
) -> bool:
    """Whether two people chose the same; a first, or another, choice is noted with its reason."""
    if not verdict.needs_second_person:
        return True
    same = hold.evidence.get("asked", choice) == choice
    if hold.first_person and hold.first_person != actor and same:
        return True
    asked = {**hold.evidence, "asked": choice, "asked_because": reason}
    evidence = msgspec.json.encode(asked).decode()
    await ledger.execute(
        "UPDATE hold SET first_person = ?, evidence = ? WHERE id = ?", actor, evidence, hold.id
    )
    await audit.append(
        ledger,
        actor=actor,
        action="hold release asked",
        facility=hold.facility,
        exam=choice["exam"],
        facts={"hold": hold.id, "reason": reason, "identity": choice["identity"]},
    )
    return False


async def _join(
    engine: Engine, hold: HoldRow, study: Mapping[str, Any], exam: Exam, *, correct: bool
) -> None:
    ledger = engine.ledger
    # Such as by another of its holds: what is queued there would be sent all the same.
    elsewhere = study["exam"] not in {None, exam.id}
    if elsewhere or (hold.reason == NO_DESTINATION and study["exam"] is None):
        raise MatchingError("this Study belongs to another exam; recall it there first")
    if hold.reason == NO_DESTINATION:
        if not await route_study(engine, exam, hold.study):
            raise MatchingError("still no destination fits the exam")
        await conclude(engine, [exam.id])
        return
    await ledger.execute(
        "UPDATE study SET state = ?, exam = ?, correct_identity = ?, updated_at = ? WHERE id = ?",
        await _state_of(ledger, study),
        exam.id,
        correct,
        now(),
        hold.study,
    )
    await link_study(engine, exam, hold.study)
    await resume_study(engine, hold.facility, study["study_instance_uid"])


async def _state_of(ledger: Ledger, study: Mapping[str, Any]) -> str:
    """Of a Study that joins an exam: it waits while another part of it is in question."""
    asked = await question_open(ledger, study["facility"], study["study_instance_uid"])
    return "stopped" if asked else "matched"


async def create_from_hold(
    engine: Engine,
    hold_id: str,
    *,
    reason: str,
    actor: str,
    facilities: Sequence[str] | None = None,
) -> Exam:
    """Make an exam of a held Study, with the identity it came with.

    Raises:
        MatchingError: The hold does not allow it.
    """
    ledger = engine.ledger
    async with ledger.transaction():
        hold = await _open(ledger, hold_id, facilities)
        study = await lock_study(ledger, hold.study)
        if hold.kind != "study" or study["exam"] is not None:
            raise MatchingError("only a Study without an exam can become one")
        exam = await create_from_study(engine, study)
        await close_hold(
            ledger, hold.id, state="created", actor=actor, resolution=reason, exam=exam.id
        )
        await ledger.execute(
            "UPDATE study SET state = ?, exam = ?, updated_at = ? WHERE id = ?",
            await _state_of(ledger, study),
            exam.id,
            now(),
            hold.study,
        )
        await link_study(engine, exam, hold.study)
        await resume_study(engine, hold.facility, study["study_instance_uid"])
        await note_exam(ledger, exam, actor, "exam created from hold", hold=hold.id, reason=reason)
    engine.work.set()
    return exam


async def reject_hold(
    engine: Engine,
    hold_id: str,
    *,
    reason: str,
    actor: str,
    facilities: Sequence[str] | None = None,
) -> None:
    """Decide that what is held belongs nowhere; it stays kept, and a stopped Study goes on.

    So do images that were held because a rejected Study has the same ones with other content.

    Raises:
        MatchingError: The hold does not allow it, or no reason is given.
    """
    if not reason.strip():
        raise MatchingError("a rejection needs a reason")
    ledger = engine.ledger
    async with ledger.transaction():
        hold = await _open(ledger, hold_id, facilities)
        if hold.kind == "study":
            await lock_rivals(ledger, hold.study)
        study = await lock_study(ledger, hold.study)
        await close_hold(
            ledger, hold.id, state="rejected", actor=actor, resolution=reason, exam=None
        )
        if hold.kind == "study":
            if study["exam"] is None:
                await ledger.execute(
                    "UPDATE study SET state = 'rejected', updated_at = ? WHERE id = ?",
                    now(),
                    hold.study,
                )
                for corrected, fresh in (await give_way(ledger, study=hold.study)).items():
                    await take_study(engine, corrected, fresh, again=True)
            elif hold.reason == LATE:
                since = hold.evidence.get("since", "")
                await leave_behind(ledger, hold.study, since=since, actor=actor, why=reason)
                await send_rest(engine, study)
            await resume_study(engine, hold.facility, study["study_instance_uid"])
        if study["exam"] is not None:  # it may have waited for this answer alone
            await conclude(engine, [study["exam"]])
        await audit.append(
            ledger,
            actor=actor,
            action="hold rejected",
            facility=hold.facility,
            facts={"hold": hold.id, "reason": reason},
        )
    engine.work.set()


async def recall_hold(
    engine: Engine,
    hold_id: str,
    *,
    reason: str,
    actor: str,
    facilities: Sequence[str] | None = None,
) -> int:
    """Undo a release: sending stops and the Study is held again.

    Where something was sent already, ``engine.recall_notice`` tells the radiologists and the
    coordinators who can be reached, and knows who these are.

    Returns:
        How many instances a destination has already; they must be removed there by a person.

    Raises:
        MatchingError: The hold was not released.
    """
    ledger = engine.ledger
    async with ledger.transaction():
        hold = await show_hold(ledger, hold_id, facilities=facilities, lock=True)
        if hold.state not in {"released", "created"} or hold.exam is None:
            raise MatchingError(f"a hold that is {hold.state} cannot be recalled")
        study = await lock_study(ledger, hold.study)
        exam = await exam_by_id(ledger, hold.exam, lock=True)
        if exam is None or study["exam"] != exam.id:
            raise MatchingError("the Study has left that exam already")
        sent = await unlink_study(engine, study, state="held")
        await close_hold(
            ledger, hold.id, state="recalled", actor=actor, resolution=reason, exam=exam.id
        )
        again = await open_hold(
            ledger,
            kind="study",
            facility=hold.facility,
            study=hold.study,
            row=hold.row,
            reason="recalled",
            alarm=True,
            evidence=hold.evidence,
        )
        if hold.row == 2:  # whose the Study is, is asked again
            await stop_study(engine, hold.facility, study["study_instance_uid"])
        await conclude(engine, [exam.id])  # what stays may be delivered already
        await note_exam(
            ledger, exam, actor, "release recalled", hold=hold.id, reason=reason, sent=str(sent)
        )
        if sent:
            await tell_recall(engine, exam, hold.id, sent)
        elif again:
            await emit(
                ledger, "study_held", exam=exam.id, dedupe=f"study_held:{again}",
                facts={"hold": again, "reason": "recalled"},
            )  # fmt: skip
    return sent
