"""Saying that one sees to it: where the link of a message leads, after signing in."""

from typing import Any

from litestar import Request, get, post
from litestar.exceptions import NotFoundException, PermissionDeniedException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.core.number import format_number
from rso.engine.matters import acknowledge, find_matter, may_acknowledge
from rso.web.auth import Identity, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


async def _find(request: Ask, me: Identity, matter: str) -> dict[str, Any]:
    found = await find_matter(engine_of(request).ledger, matter, facilities=me.person.facilities)
    if found is None:
        raise NotFoundException("this is not known any more")
    return found


@get("/acknowledge/{matter:str}")
async def matter_page(request: Ask, matter: FromPath[str]) -> Template:
    """What needs a person, who was told, and a button."""
    me = await signed_in(request)
    found = await _find(request, me, matter)
    shown = format_number(found["number"]) if found["number"] else ""
    return page(
        request, "acknowledge.html", me, matter=found, shown=shown,
        may=may_acknowledge(me.person, found),
    )  # fmt: skip


@post("/acknowledge/{matter:str}", status_code=303)
async def acknowledge_matter(request: Ask, matter: FromPath[str]) -> Redirect:
    """Nobody else is told; on to the exam, or to the holds."""
    me = await signed_in(request)
    found = await _find(request, me, matter)
    if not may_acknowledge(me.person, found):
        raise PermissionDeniedException("your role does not allow this")
    await acknowledge(engine_of(request).ledger, found, me.person.email)
    return Redirect(f"/exams/{found['number']}" if found["number"] else "/holds", status_code=303)


HANDLERS = [matter_page, acknowledge_matter]
