"""Exams and their deliveries as JSON: edit, complete, cancel, close, retry, resend, stop."""

from typing import Annotated, Any, Literal

from litestar import Request, get, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from rso.core.errors import ExamError
from rso.core.exam import Exam, Priority
from rso.engine.delivery_control import resend_delivery, retry_delivery, stop_delivery
from rso.engine.exam_edit import edit_exam
from rso.engine.exam_views import ExamView, view_exam
from rso.engine.exams import cancel_exam, close_exam, complete_exam, find_exam, note_exam
from rso.engine.requests import FIELDS, as_shown, check_change, check_day, request_of
from rso.ledger.deliveries import deliveries_of
from rso.ledger.standing import STOPPED_BY
from rso.web.auth import Identity, engine_of, signed_in
from rso.web.seen import exam_seen

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
Reason = Annotated[str, Meta(min_length=1, max_length=2000)]
Text = Annotated[str, Meta(max_length=200)]


class ExamChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different; changed demographics are compared with the images again.

    A field that is not sent stays; one that is sent empty is emptied. An exam that was asked for
    keeps an indication, and one that is STAT a reason.
    """

    patient_name: Annotated[str, Meta(min_length=1, max_length=300)] | UnsetType = UNSET
    patient_id: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    birth_date: Annotated[str, Meta(max_length=10)] | UnsetType = UNSET
    sex: Annotated[str, Meta(pattern="^[MFO]?$")] | UnsetType = UNSET
    modality: Annotated[str, Meta(max_length=16)] | UnsetType = UNSET
    body_part: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    accession_number: Annotated[str, Meta(max_length=16)] | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    priority_reason: (
        Annotated[
            str, Meta(max_length=1000, description="Demanded where this makes the exam STAT.")
        ]
        | UnsetType
    ) = UNSET
    laterality: Text | UnsetType = UNSET
    procedure: Text | UnsetType = UNSET
    study_date: Annotated[str, Meta(max_length=10)] | UnsetType = UNSET
    indication: Annotated[str, Meta(max_length=4000)] | UnsetType = UNSET
    history: Annotated[str, Meta(max_length=4000)] | UnsetType = UNSET
    allergies: Annotated[str, Meta(max_length=1000)] | UnsetType = UNSET
    contrast: Text | UnsetType = UNSET
    pregnancy: Text | UnsetType = UNSET
    priors: Annotated[str, Meta(max_length=2000)] | UnsetType = UNSET
    referrer: Text | UnsetType = UNSET
    callback: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    fax: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


class ExamRequest(Struct, frozen=True, kw_only=True):
    """What is asked for, and for whom, as it stands; the fields of ``ExamChange``."""

    exam_number: str
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    modality: str
    body_part: str
    accession_number: str
    priority: str
    priority_reason: str = ""
    laterality: str = ""
    procedure: str = ""
    study_date: str = ""
    indication: str = ""
    history: str = ""
    allergies: str = ""
    contrast: str = ""
    pregnancy: str = ""
    priors: str = ""
    referrer: str = ""
    callback: str = ""
    fax: str = ""


class Completion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many instances the exam has; ``null`` or 0: what is here now, if anything is."""

    expected: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None


class Why(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reason; it is kept in the audit. It must not name a patient."""

    reason: Reason


async def _exam(request: Ask, number: str, *roles: str) -> tuple[Identity, Exam]:
    me = await signed_in(request)
    me.require(*(roles or ("technician", "coordinator")))
    ledger = engine_of(request).ledger
    return me, await find_exam(ledger, number, facilities=me.person.facilities)


async def _view(request: Ask, number: str) -> ExamView:
    ledger = engine_of(request).ledger
    return await view_exam(ledger, await find_exam(ledger, number))


def _given(data: ExamChange) -> dict[str, Any]:
    return {name: value for name, value in structs.asdict(data).items() if value is not UNSET}


@get("/api/exams/{number:str}/request")
async def api_request(request: Ask, number: FromPath[str]) -> ExamRequest:
    """What was asked for, with the patient."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, "request")
    said = await request_of(ledger, exam)
    return ExamRequest(
        exam_number=exam.number,
        patient_name=exam.patient.name,
        patient_id=exam.patient.patient_id,
        birth_date=exam.patient.birth_date,
        sex=exam.patient.sex,
        modality=exam.modality,
        body_part=exam.body_part,
        accession_number=exam.accession_number,
        priority=exam.priority.value,
        **{f.name: as_shown(f.name, str(said[f.name])) for f in FIELDS if said.get(f.name)},
    )


@patch("/api/exams/{number:str}")
async def api_edit(request: Ask, number: FromPath[str], data: JSONBody[ExamChange]) -> ExamView:
    """Change an exam and what was asked for."""
    me, exam = await _exam(request, number, "customer", "technician", "coordinator")
    engine, given = engine_of(request), _given(data)
    if "birth_date" in given:
        given["birth_date"] = check_day("birth_date", given["birth_date"])
    check_day("study_date", given.get("study_date", ""))
    if "patient_name" in given:
        given["name"] = given.pop("patient_name")
    if "modality" in given:
        given["modality"] = given["modality"].upper()
    who: dict[str, str] = {
        k: given.pop(k) for k in ("name", "patient_id", "birth_date", "sex") if k in given
    }
    asked = {f.name: as_shown(f.name, given.pop(f.name)) for f in FIELDS if f.name in given}
    check_change(
        exam, await request_of(engine.ledger, exam), asked, given.get("priority", exam.priority)
    )
    await edit_exam(engine, exam, actor=me.person.email, patient=who, request=asked, **given)
    return await _view(request, exam.number)


@post("/api/exams/{number:str}/complete", status_code=200)
async def api_complete(request: Ask, number: FromPath[str], data: JSONBody[Completion]) -> ExamView:
    """Say that all images are here, or how many there are."""
    me, exam = await _exam(request, number)
    engine = engine_of(request)
    await complete_exam(engine, exam, actor=me.person.email, expected=data.expected)
    return await _view(request, exam.number)


@post("/api/exams/{number:str}/cancel", status_code=200)
async def api_cancel(request: Ask, number: FromPath[str], data: JSONBody[Why]) -> ExamView:
    """Cancel an exam: nothing more is sent, what is kept stays."""
    me, exam = await _exam(request, number)
    await cancel_exam(engine_of(request), exam, actor=me.person.email, reason=data.reason)
    return await _view(request, exam.number)


@post("/api/exams/{number:str}/close", status_code=200)
async def api_close(request: Ask, number: FromPath[str], data: JSONBody[Why]) -> ExamView:
    """Close an exam that is done: later images of it are held."""
    me, exam = await _exam(request, number, "coordinator")
    await close_exam(engine_of(request), exam, actor=me.person.email, reason=data.reason)
    return await _view(request, exam.number)


class Moved(Struct, frozen=True, kw_only=True):
    """How many instances go on."""

    instances: int


@post("/api/exams/{number:str}/deliveries/{destination:str}/{action:str}", status_code=200)
async def api_delivery(
    request: Ask,
    number: FromPath[str],
    destination: FromPath[str],
    action: FromPath[Literal["retry", "resend", "stop"]],
) -> Moved:
    """Retry what stopped, resend everything, or stop what is not yet acknowledged."""
    me, exam = await _exam(request, number)
    engine = engine_of(request)
    rows = await deliveries_of(engine.ledger, exam.id)
    found = next((row["id"] for row in rows if row["destination"] == destination), None)
    if found is None:
        raise ExamError("the exam has no delivery to this destination")
    count = 0
    if action == "retry":
        count = await retry_delivery(engine, found)
    elif action == "resend":
        count = await resend_delivery(engine, found)
    else:
        await stop_delivery(engine, found, reason=f"{STOPPED_BY}{me.person.email}"[:200])
    await note_exam(
        engine.ledger, exam, me.person.email, f"delivery {action}", destination=destination
    )
    return Moved(instances=count)


HANDLERS = [api_request, api_edit, api_complete, api_cancel, api_close, api_delivery]
