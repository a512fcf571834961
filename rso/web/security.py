"""One's own safety: the second factor, open sessions, and a new password."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.ledger import audit
from rso.ledger.people import change_password, too_many
from rso.ledger.second_factor import (
    begin_totp,
    check_totp,
    confirm_totp,
    end_totp,
    has_totp,
    provisioning_uri,
)
from rso.ledger.sessions import end_other_sessions, sessions_of
from rso.web.auth import COOKIE, Identity, checked_form, engine_of, signed_in
from rso.web.codes import qr_svg
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_SHORTEST_PASSWORD = 10


async def _show(
    request: Ask, me: Identity, *, problem: str = "", codes: list[str] | None = None
) -> Template:
    engine = engine_of(request)
    email = me.person.email
    enrolled = await has_totp(engine.ledger, email)
    secret = "" if enrolled else await begin_totp(engine.ledger, email)
    uri = provisioning_uri(secret, email, engine.settings.site.name) if secret else ""
    made = page(
        request,
        "security.html",
        me,
        enrolled=enrolled,
        secret=secret,
        qr=qr_svg(uri) if uri else "",
        sessions=await sessions_of(engine.ledger, email),
        problem=problem,
        codes=codes or [],
    )
    if problem:
        made.status_code = 422
    return made


@get("/me/security")
async def security_page(request: Ask) -> Template:
    """The second factor and the open sessions."""
    return await _show(request, await signed_in(request))


@post("/me/security/{action:str}", status_code=200)
async def change_security(request: Ask, action: FromPath[str]) -> Response[Any]:
    """Begin or end the second factor, end other sessions, or set a new password."""
    me = await signed_in(request)
    form = await checked_form(request)
    ledger, email = engine_of(request).ledger, me.person.email
    if await too_many(ledger, f"security:{email}", 10):
        return await _show(request, me, problem="Too many tries; please wait a minute.")
    if action == "begin":
        codes = await confirm_totp(ledger, email, form.get("code", ""))
        if codes is None:
            return await _show(request, me, problem="This code is not right.")
        await audit.append(ledger, actor=email, action="second factor begun")
        return await _show(request, me, codes=codes)
    if problem := await _change(request, email, action, form):
        return await _show(request, me, problem=problem)
    return Redirect("/me/security", status_code=303)


async def _change(request: Ask, email: str, action: str, form: dict[str, str]) -> str:
    """Do it; in words why not, or empty."""
    ledger = engine_of(request).ledger
    if action == "end":
        if not await check_totp(ledger, email, form.get("code", "")):
            return "This code is not right."
        await end_totp(ledger, email)
        await audit.append(ledger, actor=email, action="second factor ended")
    elif action == "password":
        if len(form.get("new", "")) < _SHORTEST_PASSWORD:
            return "A password has at least ten characters."
        if not await change_password(ledger, email, form.get("old", ""), form["new"]):
            return "The old password is not right."
        await end_other_sessions(ledger, email, request.cookies.get(COOKIE, ""))
        await audit.append(ledger, actor=email, action="password changed")
    elif action == "sessions":
        await end_other_sessions(ledger, email, request.cookies.get(COOKIE, ""))
    else:
        raise NotFoundException("no such action")
    return ""


HANDLERS = [security_page, change_security]
