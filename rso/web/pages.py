"""The pages of a working day: a new exam, an exam, holds."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.core.errors import ExamError
from rso.core.exam import Patient, Priority
from rso.core.names import parse_birth_date
from rso.core.number import format_number
from rso.engine.exams import create_exam, find_exam
from rso.engine.holds import (
    create_from_hold,
    recall_hold,
    reject_hold,
    release_hold,
    show_hold,
)
from rso.engine.matters import note_opened
from rso.engine.notify import notify_people, reachable
from rso.ledger.holds import find_holds
from rso.ledger.lists import (
    facilities_of,
)
from rso.ledger.studies import studies_by_ids
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.codes import barcode_svg, qr_svg
from rso.web.notifying import chosen_people
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


@get("/exams/new")
async def new_exam(request: Ask) -> Template:
    """The request form."""
    me = await signed_in(request)
    me.require("customer", "technician", "coordinator")
    facilities = await facilities_of(engine_of(request).ledger, me.person.facilities)
    return page(
        request, "new.html", me, facilities=facilities, form={}, problems={},
        reachable=await _reachable(request, facilities),
    )  # fmt: skip


async def _reachable(request: Ask, facilities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everybody who can be told, of all the facilities that the form offers."""
    found: dict[str, dict[str, Any]] = {}
    for facility in facilities[:20]:
        for person in await reachable(engine_of(request), facility["code"]):
            found[person["email"]] = person
    return list(found.values())


def _problems(form: dict[str, str], codes: set[str]) -> dict[str, str]:
    problems = {}
    if form.get("facility") not in codes:
        problems["facility"] = "Choose a facility."
    if not form.get("family"):
        problems["family"] = "Enter the family name, or UNKNOWN."
    born = form.get("birth_date", "")
    if born and not parse_birth_date(born):
        problems["birth_date"] = "Enter a real day."
    if not form.get("indication"):
        problems["indication"] = "Say why the exam is asked for."
    if form.get("priority") == "stat" and not form.get("priority_reason"):
        problems["priority_reason"] = "A STAT exam needs a reason."
    return problems


_REQUEST_FIELDS = ("indication", "history", "referrer", "callback", "procedure", "priority_reason")


@post("/exams/new", status_code=200)
async def make_exam(request: Ask) -> Response[Any]:
    """Create the exam, or show the form again with what is missing."""
    me = await signed_in(request)
    me.require("customer", "technician", "coordinator")
    form = await checked_form(request)
    engine = engine_of(request)
    facilities = await facilities_of(engine.ledger, me.person.facilities)
    problems = _problems(form, {f["code"] for f in facilities})
    if problems:
        shown = page(
            request, "new.html", me, facilities=facilities, form=form, problems=problems,
            reachable=await _reachable(request, facilities),
        )  # fmt: skip
        shown.status_code = 422
        return shown
    parts = [form.get(name, "").replace("^", " ") for name in ("family", "given", "middle")]
    priority = form.get("priority", "routine")
    exam = await create_exam(
        engine,
        facility=form["facility"],
        patient=Patient(
            name="^".join(parts).rstrip("^"),
            patient_id=form.get("patient_id", ""),
            birth_date=parse_birth_date(form.get("birth_date", "")),
            sex=form.get("sex", "") if form.get("sex") in {"M", "F", "O"} else "",
        ),
        priority=Priority(priority) if priority in set(Priority) else Priority.ROUTINE,
        modality=form.get("modality", "").upper()[:16],
        body_part=form.get("body_part", "")[:64],
        accession_number=form.get("accession_number", "")[:16],
        request={name: form[name] for name in _REQUEST_FIELDS if form.get(name)},
        actor=me.person.email,
    )
    await notify_people(
        engine, exam, chosen_people(form), actor=me.person.email, note=form.get("note", "")
    )
    return Redirect(f"/exams/{exam.number}/created", status_code=303)


@get("/exams/{number:str}/created")
async def created(request: Ask, number: FromPath[str]) -> Template:
    """The exam number, large."""
    me = await signed_in(request)
    exam = await find_exam(engine_of(request).ledger, number, facilities=me.person.facilities)
    return page(
        request,
        "created.html",
        me,
        exam=exam,
        shown=format_number(exam.number),
        qr=qr_svg(exam.number),
        barcode=barcode_svg(exam.number),
    )


@get("/holds")
async def hold_list(request: Ask) -> Template:
    """What waits for a person."""
    me = await signed_in(request)
    holds = await find_holds(engine_of(request).ledger, facilities=me.person.facilities)
    return page(request, "holds.html", me, holds=holds)


async def _hold_page(request: Ask, me: Identity, hold_id: str, problem: str = "") -> Template:
    ledger = engine_of(request).ledger
    hold = await show_hold(ledger, hold_id, facilities=me.person.facilities)
    study = (await studies_by_ids(ledger, [hold.study]))[0]
    suspects = []
    for number in hold.evidence.get("suggestions", [])[:5]:
        try:
            exam = await find_exam(ledger, number, facilities=[hold.facility])
        except ExamError:
            continue
        suspects.append({"exam": exam, "shown": format_number(exam.number)})
    return page(
        request, "hold.html", me, hold=hold, study=study, suspects=suspects, problem=problem
    )


@get("/holds/{hold_id:str}")
async def hold_page(request: Ask, hold_id: FromPath[str]) -> Template:
    """One hold, both identities side by side."""
    me = await signed_in(request)
    shown = await _hold_page(request, me, hold_id)
    await note_opened(engine_of(request).ledger, me.person, hold=hold_id)
    return shown


@post("/holds/{hold_id:str}", status_code=200)
async def decide_hold(request: Ask, hold_id: FromPath[str]) -> Response[Any]:
    """Release to an exam, make an exam of it, reject, or take a release back."""
    me = await signed_in(request)
    me.require("coordinator")
    form = await checked_form(request)
    engine = engine_of(request)
    facilities = me.person.facilities
    reason = form.get("reason", "")
    if not reason:
        return await _hold_page(request, me, hold_id, "Please give a reason.")
    asked: dict[str, Any] = {"reason": reason, "actor": me.person.email, "facilities": facilities}
    if form.get("decision") == "release":
        done = await release_hold(
            engine, hold_id, form.get("exam", ""), identity=form.get("identity", "exam"), **asked
        )
        if not done:
            return await _hold_page(
                request,
                me,
                hold_id,
                "Name and birth date both differ: a second person must release it too.",
            )
    elif form.get("decision") == "create":
        await create_from_hold(engine, hold_id, **asked)
    elif form.get("decision") == "recall":
        await recall_hold(engine, hold_id, **asked)
    else:
        await reject_hold(engine, hold_id, **asked)
    return Redirect("/holds", status_code=303)


HANDLERS = [
    new_exam,
    make_exam,
    created,
    hold_list,
    hold_page,
    decide_hold,
]
