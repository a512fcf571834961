"""The JSON API; the pages use the same services."""

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.exceptions import ClientException, ValidationException
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct

from rso.core.errors import ExamError
from rso.core.exam import ExamStatus, Patient, Priority
from rso.engine.exam_views import ExamSummary, ExamView, view_exam
from rso.engine.exams import create_exam, find_exam, list_exams
from rso.engine.holds import HoldSummary, list_holds
from rso.engine.notify import notify_people
from rso.engine.requests import (
    FIELDS,
    UNKNOWN_PATIENT,
    as_shown,
    check_day,
    duplicates_of,
    unknown_name,
)
from rso.ledger.holds import Place, open_holds
from rso.web.auth import engine_of, signed_in
from rso.web.cursors import cursor_of, place_of
from rso.web.seen import exam_seen

__all__ = ["HANDLERS", "CreatedExam", "NewExam"]

Ask = Request[Any, Any, Any]
Text = Annotated[str, Meta(max_length=200)]
Cursor = Annotated[str, QueryParameter(max_length=32, description="A page's `next` or `previous`.")]
Limit = Annotated[int, QueryParameter(ge=1, le=10_000, description="Exams on a page.")]
HoldCursor = Annotated[str, QueryParameter(max_length=64, description="An answer's `next`.")]
HoldLimit = Annotated[int, QueryParameter(ge=1, le=500, description="Holds on a page.")]


class NewExam(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for an exam.

    Attributes:
        unknown_patient: Nobody knows who it is: RSO makes a name that matching reads as none.
        check_duplicates: Refuse (409) where an open exam of the same patient is there already.
        notify: Whom to tell: channels by email.
        note: For those who are told, read in RSO only.
    """

    facility: Text
    patient_name: Annotated[str, Meta(max_length=300)] = ""
    patient_id: Annotated[str, Meta(max_length=64)] = ""
    birth_date: Annotated[str, Meta(max_length=10)] = ""
    sex: Annotated[str, Meta(pattern="^[MFO]?$")] = ""
    unknown_patient: bool = False
    modality: Annotated[str, Meta(max_length=16)] = ""
    body_part: Annotated[str, Meta(max_length=64)] = ""
    accession_number: Annotated[str, Meta(max_length=16)] = ""
    priority: Priority = Priority.ROUTINE
    priority_reason: Annotated[
        str,
        Meta(
            max_length=1000,
            description="Why it is STAT. Please give it with `stat`: it is not demanded here, so"
            " that programs which know no reason can make exams, but a later change to STAT"
            " demands it.",
        ),
    ] = ""
    laterality: Text = ""
    procedure: Text = ""
    study_date: Annotated[str, Meta(max_length=10)] = ""
    indication: Annotated[str, Meta(max_length=4000)] = ""
    history: Annotated[str, Meta(max_length=4000)] = ""
    allergies: Annotated[str, Meta(max_length=1000)] = ""
    contrast: Text = ""
    pregnancy: Text = ""
    priors: Annotated[str, Meta(max_length=2000)] = ""
    referrer: Text = ""
    callback: Annotated[str, Meta(max_length=64)] = ""
    fax: Annotated[str, Meta(max_length=64)] = ""
    check_duplicates: bool = False
    notify: dict[str, list[str]] = {}
    note: Annotated[str, Meta(max_length=2000)] = ""


class CreatedExam(Struct, frozen=True, kw_only=True):
    """The number of a new exam, without dashes."""

    exam_number: str


class Exams(Struct, frozen=True, kw_only=True):
    """A page of a list of exams.

    Attributes:
        next: The ``cursor`` of the page that follows; ``null`` at the end.
        previous: The ``cursor`` of the page before; ``null`` at the top.
    """

    exams: list[ExamSummary]
    next: str | None
    previous: str | None


class Holds(Struct, frozen=True, kw_only=True):
    """A page of holds: those with an alarm first, then the oldest.

    Attributes:
        more: How many wait behind these.
        next: The ``cursor`` of the page that follows; ``null`` at the end.
    """

    holds: list[HoldSummary]
    more: int
    next: str | None


@post("/api/exams")
async def api_create(request: Ask, data: JSONBody[NewExam]) -> CreatedExam:
    """Create an exam."""
    me = await signed_in(request)
    me.require("customer", "technician", "coordinator")
    engine = engine_of(request)
    allowed = me.person.facilities
    if not data.patient_name and not data.unknown_patient:
        raise ValidationException("a patient has a name, or is unknown")
    check_day("study_date", data.study_date)
    patient = Patient(
        name=unknown_name(data.sex) if data.unknown_patient else data.patient_name,
        patient_id=data.patient_id,
        birth_date=check_day("birth_date", data.birth_date),
        sex=data.sex,
    )
    # Another facility's code is answered as one that does not exist.
    if allowed is not None and data.facility not in allowed:
        raise ExamError(f"no facility has the code {data.facility}")
    if data.check_duplicates:
        found = await duplicates_of(
            engine.ledger, data.facility, patient, engine.settings.intake.open_days
        )
        if found:
            numbers = ", ".join(exam.number for exam in found)
            raise ClientException(f"the patient has open exams: {numbers}", status_code=409)
    asked = {field.name: as_shown(field.name, getattr(data, field.name)) for field in FIELDS}
    exam = await create_exam(
        engine,
        facility=data.facility,
        patient=patient,
        priority=data.priority,
        modality=data.modality,
        body_part=data.body_part,
        accession_number=data.accession_number,
        request={name: text for name, text in asked.items() if text},
        flags=(UNKNOWN_PATIENT,) if data.unknown_patient else (),
        actor=me.person.email,
    )
    await notify_people(engine, exam, data.notify, actor=me.person.email, note=data.note)
    return CreatedExam(exam_number=exam.number)


@get("/api/exams")
async def api_list(
    request: Ask,
    status: FromQuery[ExamStatus | None] = None,
    facility: FromQuery[str | None] = None,
    priority: FromQuery[Priority | None] = None,
    cursor: Cursor = "",
    limit: Limit = 1000,
) -> Exams:
    """List exams, newest first, a page at a time.

    An answer's ``next`` is the ``cursor`` of the page that follows, its ``previous`` that of the
    page before. Exams that are made meanwhile move nothing: each exam is on one page.
    """
    me = await signed_in(request)
    back = cursor.startswith("-")
    number = cursor.removeprefix("-")
    if cursor and not number:
        raise ValidationException("the cursor is not one of this list")
    found = await list_exams(
        engine_of(request).ledger,
        status=status.value if status else None,
        facilities=me.person.facilities,
        facility=facility,
        priority=priority,
        after="" if back else number,
        until=number if back else "",
        limit=limit + 1,
    )
    more = len(found) > limit
    if back:
        first = f"-{found[0].exam_number}" if more else None
        return Exams(exams=found[-limit:], next=number or None, previous=first)
    shown = found[:limit]
    following = shown[-1].exam_number if more else None
    return Exams(exams=shown, next=following, previous=f"-{number}" if number else None)


@get("/api/exams/{number:str}")
async def api_show(request: Ask, number: FromPath[str]) -> ExamView:
    """Show an exam with its Studies and deliveries."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, "state")
    return await view_exam(ledger, exam)


@get("/api/holds")
async def api_holds(request: Ask, cursor: HoldCursor = "", limit: HoldLimit = 500) -> Holds:
    """List what waits for a decision, alarms first, a page at a time.

    Holds that are opened or decided meanwhile move nothing: what waits all along is on one page.
    """
    me = await signed_in(request)
    ledger, whose = engine_of(request).ledger, me.person.facilities
    found = await list_holds(
        ledger, facilities=whose, alarms_first=True, after=_place(cursor), most=limit + 1
    )
    shown = found[:limit]
    if len(found) == len(shown):
        return Holds(holds=shown, more=0, next=None)
    last = shown[-1]
    behind = await open_holds(ledger, whose, after=(last.alarm, last.opened_at, last.id))
    following = f"{last.alarm:d}_{cursor_of(last.opened_at, last.id)}"
    return Holds(holds=shown, more=behind["count"], next=following)


def _place(cursor: str) -> Place | None:
    """The last hold of the page before."""
    if not cursor:
        return None
    alarm, _, place = cursor.partition("_")
    if alarm not in {"0", "1"}:
        raise ValidationException("the cursor is not one of this list")
    return alarm == "1", *place_of(place)


HANDLERS = [api_create, api_list, api_show, api_holds]
