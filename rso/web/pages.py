"""The pages of a working day: a new exam, an exam, holds."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.core.errors import ExamError
from rso.core.number import format_number
from rso.engine.exams import find_exam
from rso.engine.holds import (
    create_from_hold,
    recall_hold,
    reject_hold,
    release_hold,
    show_hold,
)
from rso.engine.matters import note_opened
from rso.ledger.holds import find_holds
from rso.ledger.studies import studies_by_ids
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


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
    hold_list,
    hold_page,
    decide_hold,
]
