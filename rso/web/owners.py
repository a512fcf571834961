"""Claiming an exam, giving it to somebody, letting it go; from the list and the exam's page."""

from typing import Any

from litestar import Request, Response, post
from litestar.exceptions import PermissionDeniedException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.core.errors import OwnerError
from rso.core.exam import Exam
from rso.engine.context import Engine
from rso.engine.exams import find_exam
from rso.engine.owners import claim_exam, give_exam, release_exam
from rso.ledger.people import Person
from rso.web.auth import checked_form, engine_of, signed_in
from rso.web.exam_page import show_exam

__all__ = ["HANDLERS", "change_hands"]


async def change_hands(
    engine: Engine, exam: Exam, person: Person, action: str, to: str = ""
) -> None:
    """``claim``, ``release`` or ``give``, as far as the person's role goes.

    Raises:
        OwnerError: Somebody else has it, or ``to`` cannot look after it.
        PermissionDeniedException: Only a coordinator gives, or takes from others.
    """
    leads = person.role in {"coordinator", "admin"}
    if action == "claim":
        await claim_exam(engine, exam, actor=person.email)
    elif action == "release":
        await release_exam(engine, exam, actor=person.email, anybodys=leads)
    elif leads:
        await give_exam(engine, exam, to, actor=person.email)
    else:
        raise PermissionDeniedException("only a coordinator gives exams to others")


@post("/exams/{number:str}/owner", status_code=303)
async def change_owner(
    request: Request[Any, Any, Any], number: FromPath[str]
) -> Response[Any] | Template:
    """``to``: ``me`` claims, an address assigns, ``-`` lets go; htmx is told to load the rows.

    The exam's page says it where somebody was faster.
    """
    me = await signed_in(request)
    me.require("technician", "coordinator")
    form = await checked_form(request)
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    to = form.get("to", "")
    action = {"me": "claim", "-": "release"}.get(to, "give")
    by_list = "hx-request" in request.headers
    try:
        await change_hands(engine, exam, me.person, action, to)
    except OwnerError as exc:
        if by_list:  # which says it above its rows
            raise
        return await show_exam(request, me, exam, status=409, owner_problem=f"{exc}".capitalize())
    if by_list:
        return Response(None, status_code=204, headers={"HX-Trigger": "refresh"})
    return Redirect(f"/exams/{exam.number}", status_code=303)


HANDLERS = [change_owner]
