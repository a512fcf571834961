"""Asking for an exam, and changing what was asked: the form, its draft, the number, a worksheet."""

from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.core.errors import RefusedError
from rso.core.exam import Exam
from rso.core.number import format_number
from rso.engine.documents import documents_of
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import create_exam, find_exam
from rso.engine.notify import notify_people, reachable
from rso.engine.requests import (
    FIELDS,
    SIDES,
    UNKNOWN_PATIENT,
    Asked,
    asked_of,
    duplicates_of,
    read_request,
    request_of,
)
from rso.ledger.drafts import DRAFT_DAYS, drop_draft, find_draft, save_draft
from rso.ledger.lists import facilities_of
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.codes import barcode_svg, qr_svg
from rso.web.documents import MOST_BODY, add_documents, chosen_documents
from rso.web.notifying import chosen_people
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_WRITERS = ("customer", "technician", "coordinator")
_OWN = ("family", "given", "middle", "birth_date", "sex", "patient_id", "unknown", "facility",
        "modality", "body_part", "accession_number", "priority", "note")  # fmt: skip
_DRAFTED = frozenset({*_OWN, *(field.name for field in FIELDS)})


async def _form(
    request: Ask,
    me: Identity,
    form: Mapping[str, str],
    *,
    problems: Mapping[str, str] | None = None,
    **more: Any,
) -> Template:
    """The request form; with problems it is answered with 422."""
    engine = engine_of(request)
    facilities = await facilities_of(engine.ledger, me.person.facilities)
    people: dict[str, dict[str, Any]] = {}
    for facility in facilities[:20]:
        for person in await reachable(engine, facility["code"]):
            people[person["email"]] = person
    made = page(
        request, "new.html", me, facilities=facilities, form=form, problems=problems or {},
        reachable=list(people.values()), sides=SIDES, days=DRAFT_DAYS, **more,
    )  # fmt: skip
    if problems or more.get("duplicates"):
        made.status_code = 422
    return made


@get("/exams/new")
async def new_exam(request: Ask) -> Template:
    """The request form, with the person's draft in it."""
    me = await signed_in(request)
    me.require(*_WRITERS)
    ledger = engine_of(request).ledger
    draft = await find_draft(ledger, me.person.email, me.person.facilities)
    return await _form(request, me, draft.form if draft else {}, draft=draft)


@post("/exams/new/draft", status_code=200)
async def keep_draft(request: Ask) -> dict[str, bool]:
    """Keep what is typed so far, or with ``drop`` forget it."""
    me = await signed_in(request)
    me.require(*_WRITERS)
    form = await checked_form(request)
    ledger = engine_of(request).ledger
    if form.get("drop"):
        await drop_draft(ledger, me.person.email)
        return {"kept": False}
    typed = {name: text for name, text in form.items() if name in _DRAFTED and text}
    mine = await facilities_of(ledger, me.person.facilities)
    if typed.get("facility") not in {f["code"] for f in mine}:
        return {"kept": False}
    return {"kept": await save_draft(ledger, me.person.email, typed)}


@post("/exams/new", status_code=200, request_max_body_size=MOST_BODY)
async def make_exam(request: Ask) -> Response[Any]:
    """Create the exam, or show the form again with what is missing or asked twice."""
    me = await signed_in(request)
    me.require(*_WRITERS)
    form = await checked_form(request)
    engine = engine_of(request)
    mine = await facilities_of(engine.ledger, me.person.facilities)
    asked = read_request(form)
    problems = dict(asked.problems)
    if form.get("facility") not in {f["code"] for f in mine}:
        problems["facility"] = "Choose a facility."
    try:
        documents = await chosen_documents(request)
    except RefusedError as exc:
        problems["documents"] = f"{exc}."
        documents = []
    if problems:
        return await _form(request, me, form, problems=problems)
    found = await duplicates_of(
        engine.ledger, form["facility"], asked.patient, engine.settings.intake.open_days
    )
    seen = form.get("seen_duplicates", "").split()
    if any(exam.number not in seen for exam in found):
        return await _form(request, me, form, duplicates=_shown(found))
    exam = await _create(request, me, form["facility"], asked)
    await add_documents(request, exam, documents, me.person.email)
    await notify_people(
        engine, exam, chosen_people(form), actor=me.person.email, note=form.get("note", "")
    )
    await drop_draft(engine.ledger, me.person.email)
    return Redirect(f"/exams/{exam.number}/created", status_code=303)


def _shown(exams: Sequence[Exam]) -> list[dict[str, Any]]:
    return [{"exam": exam, "shown": format_number(exam.number)} for exam in exams]


async def _create(request: Ask, me: Identity, facility: str, asked: Asked) -> Exam:
    return await create_exam(
        engine_of(request),
        facility=facility,
        patient=asked.patient,
        priority=asked.priority,
        modality=asked.modality,
        body_part=asked.body_part,
        accession_number=asked.accession_number,
        request={name: text for name, text in asked.request.items() if text},
        flags=(UNKNOWN_PATIENT,) if asked.unknown else (),
        actor=me.person.email,
    )


async def _coded(request: Ask, template: str, number: str, **more: Any) -> Template:
    """A page about an exam with its number as QR code and barcode."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    return page(
        request, template, me, exam=exam, shown=format_number(exam.number),
        qr=qr_svg(exam.number), barcode=barcode_svg(exam.number),
        asked=await asked_of(ledger, exam), documents=await documents_of(ledger, exam),
        can_upload="http_upload" in request.app.state.receivers, **more,
    )  # fmt: skip


@get("/exams/{number:str}/created")
async def created(request: Ask, number: FromPath[str]) -> Template:
    """The exam number, large."""
    return await _coded(request, "created.html", number)


@get("/exams/{number:str}/worksheet")
async def worksheet(request: Ask, number: FromPath[str]) -> Template:
    """A sheet of paper for whoever makes the images."""
    return await _coded(request, "worksheet.html", number)


async def _edited(request: Ask, number: str) -> tuple[Identity, Exam]:
    me = await signed_in(request)
    me.require(*_WRITERS)
    exam = await find_exam(engine_of(request).ledger, number, facilities=me.person.facilities)
    return me, exam


@get("/exams/{number:str}/edit")
async def edit_page(request: Ask, number: FromPath[str]) -> Template:
    """The request as it stands, to be changed."""
    me, exam = await _edited(request, number)
    said = await request_of(engine_of(request).ledger, exam)
    parts = [*exam.patient.name.split("=")[0].split("^"), "", ""]
    born = exam.patient.birth_date
    form = {
        **{field.name: str(said.get(field.name, "")) for field in FIELDS},
        "family": parts[0], "given": parts[1], "middle": parts[2],
        "birth_date": f"{born[:4]}-{born[4:6]}-{born[6:]}" if born else "",
        "sex": exam.patient.sex, "patient_id": exam.patient.patient_id,
        "modality": exam.modality, "body_part": exam.body_part,
        "accession_number": exam.accession_number, "priority": exam.priority.value,
    }  # fmt: skip
    return page(
        request, "edit.html", me, exam=exam, shown=format_number(exam.number), form=form,
        problems={}, sides=SIDES,
    )  # fmt: skip


@post("/exams/{number:str}/edit", status_code=200)
async def change_exam(request: Ask, number: FromPath[str]) -> Response[Any]:
    """Change the request; another name, ID, birth date or sex is matched anew."""
    me, exam = await _edited(request, number)
    form = await checked_form(request)
    asked = read_request(form, exam.patient)
    problems = dict(asked.problems)
    if exam.origin.value == "images":
        problems.pop("indication", None)  # nobody was asked for one
    if problems:
        made = page(
            request, "edit.html", me, exam=exam, shown=format_number(exam.number), form=form,
            problems=problems, sides=SIDES,
        )  # fmt: skip
        made.status_code = 422
        return made
    await edit_exam(
        engine_of(request), exam, actor=me.person.email, patient=asked.patient,
        priority=asked.priority, modality=asked.modality, body_part=asked.body_part,
        accession_number=asked.accession_number, request=asked.request,
    )  # fmt: skip
    return Redirect(f"/exams/{exam.number}", status_code=303)


HANDLERS = [
    new_exam,
    keep_draft,
    make_exam,
    created,
    worksheet,
    edit_page,
    change_exam,
]
