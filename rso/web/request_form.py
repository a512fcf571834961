"""Asking for an exam, and changing what was asked: the form, the number, a worksheet."""

from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.core.errors import RefusedError, StaleError, StateError
from rso.core.exam import Exam
from rso.core.number import format_number
from rso.engine.context import Engine
from rso.engine.documents import documents_of
from rso.engine.draft_documents import drop_documents, send_request, sent_exam
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import find_exam
from rso.engine.notify import exam_notifications, notify_people
from rso.engine.requests import (
    FIELDS,
    MOST,
    SIDES,
    as_shown,
    asked_of,
    duplicates_of,
    read_request,
    request_of,
)
from rso.ledger import Ledger
from rso.ledger.drafts import drop_draft, find_draft
from rso.ledger.lists import facilities_of
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.codes import barcode_svg, qr_svg
from rso.web.documents import MOST_BODY
from rso.web.meanwhile import is_stale, version_of
from rso.web.notifying import chosen_people, outcome_of, read_outcome
from rso.web.page import page
from rso.web.request_page import WRITERS, form_of, keep_all, show_form
from rso.web.seen import exam_seen

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_PATIENT = ("family", "given", "middle", "birth_date", "sex", "patient_id")


@get("/exams/new")
async def new_exam(request: Ask) -> Template:
    """The request form, with the person's draft in it."""
    me = await signed_in(request)
    me.require(*WRITERS)
    draft = await find_draft(engine_of(request).ledger, me.person.email, me.person.facilities)
    of = form_of(me, {"draft": draft.key if draft else ""})
    return await show_form(request, me, of, draft.form if draft else {}, draft=draft)


@post("/exams/new", status_code=200, request_max_body_size=MOST_BODY)
async def make_exam(request: Ask) -> Response[Any]:
    """Create the exam, or show the form again with what is missing or asked twice.

    What is typed and chosen is kept first, so that nothing has to be done again.
    """
    me = await signed_in(request)
    me.require(*WRITERS)
    form = await checked_form(request)
    engine, of = engine_of(request), form_of(me, form)
    given = await keep_all(request, me, of, form)
    if sent := await sent_exam(engine.ledger, of, given.digest):
        await drop_documents(engine, of, given.chosen)
        await drop_draft(engine.ledger, of.account, of.key)
        return await _made(engine, sent, form)
    asked = read_request(form)
    problems: dict[str, str | Sequence[str]] = dict(asked.problems)
    mine = await facilities_of(engine.ledger, me.person.facilities)
    if form.get("facility") not in {f["code"] for f in mine}:
        problems["facility"] = "Choose a facility."
    if given.problems:
        problems["documents"] = given.problems
    if problems:
        return await show_form(request, me, of, form, problems=problems)
    found = await duplicates_of(
        engine.ledger, form["facility"], asked.patient, engine.settings.intake.open_days
    )
    seen = form.get("seen_duplicates", "").split()
    if any(exam.number not in seen for exam in found):
        return await show_form(request, me, of, form, duplicates=_shown(found))
    documents = list(dict.fromkeys([*given.listed, *given.chosen]))
    try:
        exam, new = await send_request(
            engine, of, documents, digest=given.digest, facility=form["facility"], asked=asked
        )
    except RefusedError as exc:
        problems = {"documents": [f"{exc}.".capitalize()]}
        return await show_form(request, me, of, form, problems=problems)
    if new:
        await notify_people(
            engine, exam, chosen_people(form), actor=me.person.email, note=form.get("note", "")
        )
    return await _made(engine, exam, form)


async def _made(engine: Engine, exam: Exam, form: dict[str, str]) -> Redirect:
    """The page of its number, which says who was told; the same for a form that came twice."""
    where = f"/exams/{exam.number}/created"
    if chosen := chosen_people(form):
        rows = await exam_notifications(engine.ledger, exam.id)
        told = {row["recipient"] for row in rows if row["event"] == "manual"} & set(chosen)
        where = f"{where}?{outcome_of(len(told), len(chosen) - len(told))}"
    return Redirect(where, status_code=303)


def _shown(exams: Sequence[Exam]) -> list[dict[str, Any]]:
    return [{"exam": exam, "shown": format_number(exam.number)} for exam in exams]


async def _coded(request: Ask, template: str, number: str, **more: Any) -> Template:
    """A page about an exam with its number as QR code and barcode."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, template.removesuffix(".html"))
    outcome = read_outcome(request, await exam_notifications(ledger, exam.id))
    return page(
        request, template, me, outcome=outcome, exam=exam, shown=format_number(exam.number),
        qr=qr_svg(exam.number), barcode=barcode_svg(exam.number),
        asked=await asked_of(ledger, exam), documents=await documents_of(ledger, exam),
        can_upload="http_upload" in request.app.state.receivers, **more,
    )  # fmt: skip


@get("/exams/{number:str}/created")
async def created(request: Ask, number: FromPath[str]) -> Template:
    """The exam number, large, and who was told of it."""
    return await _coded(request, "created.html", number)


@get("/exams/{number:str}/worksheet")
async def worksheet(request: Ask, number: FromPath[str]) -> Template:
    """A sheet of paper for whoever makes the images."""
    return await _coded(request, "worksheet.html", number)


async def _edited(request: Ask, number: str) -> tuple[Identity, Exam]:
    me = await signed_in(request)
    me.require(*WRITERS)
    exam = await find_exam(engine_of(request).ledger, number, facilities=me.person.facilities)
    return me, exam


async def _form_of(ledger: Ledger, exam: Exam) -> dict[str, str]:
    """The request and the patient as the form shows them."""
    said = await request_of(ledger, exam)
    parts = [*exam.patient.name.split("=")[0].split("^"), "", ""]
    stands = {
        **{field.name: str(said.get(field.name, "")) for field in FIELDS},
        "family": parts[0], "given": parts[1], "middle": parts[2],
        "birth_date": exam.patient.birth_date,
        "sex": exam.patient.sex, "patient_id": exam.patient.patient_id,
        "modality": exam.modality, "body_part": exam.body_part,
        "accession_number": exam.accession_number, "priority": exam.priority.value,
    }  # fmt: skip
    return {name: as_shown(name, text) for name, text in stands.items()}


def _patient_of(form: dict[str, str]) -> dict[str, str]:
    return {name: form[name] for name in _PATIENT}


def _edit_form(
    request: Ask, me: Identity, exam: Exam, form: dict[str, str], *, shown: str, **more: Any
) -> Template:
    return page(
        request, "edit.html", me, **{"problems": {}, **more}, exam=exam, form=form, sides=SIDES,
        most=MOST, named=exam.patient.name[:1] not in {"", "^", "="},
        shown=format_number(exam.number), version=shown,
    )  # fmt: skip


@get("/exams/{number:str}/edit")
async def edit_page(request: Ask, number: FromPath[str]) -> Template:
    """The request as it stands, to be changed."""
    me, exam = await _edited(request, number)
    await exam_seen(request, me, exam, "request")
    form = await _form_of(engine_of(request).ledger, exam)
    return _edit_form(request, me, exam, form, shown=version_of(form))


@post("/exams/{number:str}/edit", status_code=200)
async def change_exam(request: Ask, number: FromPath[str]) -> Response[Any]:
    """Change the request; another name, ID, birth date or sex is matched anew.

    The form comes again where something is wrong, where somebody changed the request since, and
    where the exam has ended and its patient would be another.
    """
    me, exam = await _edited(request, number)
    form = await checked_form(request)
    ledger = engine_of(request).ledger
    there = await _form_of(ledger, exam)
    if exam.status.ended:  # the page asks for no patient then
        form = _patient_of(there) | form
    asked = read_request(form, exam.patient, there)
    problems = dict(asked.problems)
    if exam.origin.value == "images":
        problems.pop("indication", None)  # nobody was asked for one
    if problems:
        made = _edit_form(
            request, me, exam, form, shown=form.get("shown", ""), problems=problems
        )  # fmt: skip
        made.status_code = 422
        return made

    async def still(stands: Exam) -> bool:
        return not is_stale(form, version_of(await _form_of(ledger, stands)))

    try:
        await edit_exam(
            engine_of(request), exam, actor=me.person.email, patient=asked.patient,
            priority=asked.priority, modality=asked.modality, body_part=asked.body_part,
            accession_number=asked.accession_number, request=asked.request, still=still,
        )  # fmt: skip
    except (StaleError, StateError) as exc:
        _, exam = await _edited(request, number)
        there = await _form_of(ledger, exam)
        if exam.status.ended:
            form |= _patient_of(there)
        now_shown = version_of(there)
        refused = str(exc) if isinstance(exc, StateError) else ""
        made = _edit_form(
            request, me, exam, form, shown=now_shown, changed=not refused, refused=refused
        )
        made.status_code = 409
        return made
    return Redirect(f"/exams/{exam.number}", status_code=303)


HANDLERS = [
    new_exam,
    make_exam,
    created,
    worksheet,
    edit_page,
    change_exam,
]
