"""Retention: what may leave the archive, shown before it does."""

from typing import Any

from litestar import Request, get, post
from litestar.response import Template

from rso.core.number import format_number
from rso.engine.purge import Purge, plan_purge, purge
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_MOST_SHOWN = 200


async def _admin(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require()
    return me


async def _show(request: Ask, me: Identity, done: Purge, problem: str = "") -> Template:
    engine = engine_of(request)
    rows = await engine.ledger.fetch("SELECT code, settings FROM facility ORDER BY code")
    made = page(
        request, "admin_retention.html", me, found=done, problem=problem,
        shown=[(format_number(e.exam_number), e) for e in done.exams[:_MOST_SHOWN]],
        facilities=rows, by_itself=engine.settings.retention.purge,
    )  # fmt: skip
    if problem:
        made.status_code = 422
    return made


@get("/admin/retention")
async def retention_page(request: Ask) -> Template:
    """What a purge would remove now."""
    me = await _admin(request)
    return await _show(request, me, await plan_purge(engine_of(request)))


@post("/admin/retention", status_code=200)
async def purge_now(request: Ask) -> Template:
    """Remove it, when the form says so in full."""
    me = await _admin(request)
    form = await checked_form(request)
    engine = engine_of(request)
    if form.get("confirm", "").lower() != "remove":
        problem = "Type “remove” to confirm."
        return await _show(request, me, await plan_purge(engine), problem)
    return await _show(request, me, await purge(engine, actor=me.person.email))


HANDLERS = [retention_page, purge_now]
