"""The draft of a request: kept while typing, with its documents, or thrown away."""

from typing import Any

from litestar import Request, post
from litestar.response import Redirect, Template

from rso.engine.draft_documents import drop_documents, drop_form
from rso.ledger.lists import facilities_of
from rso.web.auth import checked_form, engine_of, signed_in
from rso.web.documents import MOST_BODY
from rso.web.request_page import WRITERS, form_of, keep_all, keep_typed, show_form

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


@post("/exams/new/draft", status_code=200)
async def keep_draft(request: Ask) -> dict[str, bool]:
    """Keep what is typed so far."""
    me = await signed_in(request)
    me.require(*WRITERS)
    form = await checked_form(request)
    mine = await facilities_of(engine_of(request).ledger, me.person.facilities)
    facility = form.get("facility", "")
    if facility not in {f["code"] for f in mine}:
        return {"kept": False}
    return {"kept": await keep_typed(request, form_of(me, form), form, facility)}


@post("/exams/new/drop", status_code=303)
async def begin_anew(request: Ask) -> Redirect:
    """Throw the draft away, its documents too."""
    me = await signed_in(request)
    me.require(*WRITERS)
    await drop_form(engine_of(request), form_of(me, await checked_form(request)))
    return Redirect("/exams/new", status_code=303)


@post("/exams/new/documents", status_code=200, request_max_body_size=MOST_BODY)
async def keep_documents(request: Ask) -> Template:
    """Keep the chosen documents, or throw one away, and show the form as it was."""
    me = await signed_in(request)
    me.require(*WRITERS)
    form = await checked_form(request)
    of = form_of(me, form)
    given = await keep_all(request, me, of, form)
    if form.get("remove") in given.listed:
        await drop_documents(engine_of(request), of, [form["remove"]])
    problems = {"documents": given.problems} if given.problems else {}
    return await show_form(request, me, of, form, problems=problems)


HANDLERS = [keep_draft, begin_anew, keep_documents]
