"""The JSON API; the pages use the same services."""

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct

from rso.core.exam import Patient, Priority
from rso.core.names import parse_birth_date
from rso.engine.exam_views import ExamSummary, ExamView
from rso.engine.exams import create_exam, list_exams, show_exam
from rso.engine.holds import HoldSummary, list_holds
from rso.web.auth import engine_of, signed_in

__all__ = ["HANDLERS", "CreatedExam", "NewExam"]

Ask = Request[Any, Any, Any]
Text = Annotated[str, Meta(max_length=200)]


class NewExam(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for an exam."""

    facility: Text
    patient_name: Annotated[str, Meta(min_length=1, max_length=300)]
    patient_id: Annotated[str, Meta(max_length=64)] = ""
    birth_date: Annotated[str, Meta(max_length=10)] = ""
    sex: Annotated[str, Meta(pattern="^[MFO]?$")] = ""
    modality: Annotated[str, Meta(max_length=16)] = ""
    body_part: Annotated[str, Meta(max_length=64)] = ""
    accession_number: Annotated[str, Meta(max_length=16)] = ""
    priority: Priority = Priority.ROUTINE
    indication: Annotated[str, Meta(max_length=4000)] = ""


class CreatedExam(Struct, frozen=True, kw_only=True):
    """The number of a new exam, without dashes."""

    exam_number: str


class Exams(Struct, frozen=True, kw_only=True):
    """A list of exams."""

    exams: list[ExamSummary]


class Holds(Struct, frozen=True, kw_only=True):
    """A list of holds."""

    holds: list[HoldSummary]


@post("/api/exams")
async def api_create(request: Ask, data: JSONBody[NewExam]) -> CreatedExam:
    """Create an exam."""
    me = await signed_in(request)
    me.require("customer", "technician", "coordinator")
    engine = engine_of(request)
    allowed = me.person.facilities
    exam = await create_exam(
        engine,
        # Another facility's code is answered as one that does not exist.
        facility=data.facility if allowed is None or data.facility in allowed else "",
        patient=Patient(
            name=data.patient_name,
            patient_id=data.patient_id,
            birth_date=parse_birth_date(data.birth_date),
            sex=data.sex,
        ),
        priority=data.priority,
        modality=data.modality,
        body_part=data.body_part,
        accession_number=data.accession_number,
        request={"indication": data.indication} if data.indication else {},
        actor=me.person.email,
    )
    return CreatedExam(exam_number=exam.number)


@get("/api/exams")
async def api_list(request: Ask, status: FromQuery[str | None] = None) -> Exams:
    """List exams, newest first."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    return Exams(exams=await list_exams(ledger, status=status, facilities=me.person.facilities))


@get("/api/exams/{number:str}")
async def api_show(request: Ask, number: FromPath[str]) -> ExamView:
    """Show an exam with its Studies and deliveries."""
    me = await signed_in(request)
    return await show_exam(engine_of(request).ledger, number, facilities=me.person.facilities)


@get("/api/holds")
async def api_holds(request: Ask) -> Holds:
    """List what waits for a decision."""
    me = await signed_in(request)
    return Holds(holds=await list_holds(engine_of(request).ledger, facilities=me.person.facilities))


HANDLERS = [api_create, api_list, api_show, api_holds]
