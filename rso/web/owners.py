"""Claiming an exam, giving it to somebody, letting it go; from the list and the exam's page."""

from typing import Any

from litestar import Request, Response, post
from litestar.exceptions import PermissionDeniedException
from litestar.params import FromPath
from litestar.response import Redirect

from rso.engine.exams import find_exam
from rso.engine.owners import claim_exam, give_exam, release_exam
from rso.web.auth import checked_form, engine_of, signed_in

__all__ = ["HANDLERS"]


@post("/exams/{number:str}/owner", status_code=303)
async def change_owner(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[Any]:
    """``to``: ``me`` claims, an address assigns, ``-`` lets go; htmx is told to load the rows."""
    me = await signed_in(request)
    me.require("technician", "coordinator")
    form = await checked_form(request)
    engine, actor = engine_of(request), me.person.email
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    leads = me.person.role in {"coordinator", "admin"}
    to = form.get("to", "")
    if to == "me":
        await claim_exam(engine, exam, actor=actor)
    elif to == "-":
        await release_exam(engine, exam, actor=actor, anybodys=leads)
    elif leads:
        await give_exam(engine, exam, to, actor=actor)
    else:
        raise PermissionDeniedException("only a coordinator gives exams to others")
    if "hx-request" in request.headers:
        return Response(None, status_code=204, headers={"HX-Trigger": "refresh"})
    return Redirect(f"/exams/{exam.number}", status_code=303)


HANDLERS = [change_owner]
