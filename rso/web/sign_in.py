"""Signing in and out: password, second factor, session."""

import re
from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.response import Redirect, Template

from rso.ledger import audit
from rso.ledger.people import Person, sign_in, too_many
from rso.ledger.refused_sign_ins import note_refused
from rso.ledger.second_factor import check_totp, has_totp
from rso.ledger.sessions import begin_pending, create_session, end_session, find_pending
from rso.web.auth import COOKIE, checked_form, current, engine_of, signed_in
from rso.web.client import is_secure, limits_of, peer_address
from rso.web.page import page
from rso.web.reset import can_reset

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


def landing(text: str) -> str:
    """Where one goes after signing in: a page of RSO's own, whatever a link says."""
    return text if re.fullmatch(r"/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", text) else "/"


def _form(
    request: Ask, *, problem: str = "", email: str = "", ticket: str = "", to: str = "/"
) -> Template:
    shown = page(
        request, "sign_in.html", None, problem=problem, email=email, ticket=ticket,
        forgot=can_reset(request), to=to,
    )  # fmt: skip
    if problem:
        shown.status_code = 401
    return shown


@get("/sign-in")
async def sign_in_page(request: Ask) -> Response[Any]:
    """The form to sign in."""
    to = landing(request.query_params.get("next", ""))
    if await current(request):
        return Redirect(to)
    return _form(request, to=to)


@post("/sign-in", status_code=200)
async def sign_in_now(request: Ask) -> Response[Any]:
    """A new session for the right password; an old cookie is never taken over."""
    form = await checked_form(request)
    engine = engine_of(request)
    address = peer_address(request)
    email, to = form.get("email", ""), landing(form.get("next", ""))
    found = await sign_in(engine.ledger, email, form.get("password", ""), address)
    if isinstance(found, str):
        return _form(request, problem=found, email=email, to=to)
    if await has_totp(engine.ledger, found.email):
        ticket = await begin_pending(engine.ledger, found)
        return _form(request, email=found.email, ticket=ticket, to=to)
    return await _let_in(request, found, to)


@post("/sign-in/code", status_code=200)
async def sign_in_code(request: Ask) -> Response[Any]:
    """The second factor; wrong codes count as wrong passwords do."""
    form = await checked_form(request)
    ledger = engine_of(request).ledger
    ticket, to = form.get("ticket", ""), landing(form.get("next", ""))
    found = await find_pending(ledger, ticket)
    problem = "Please sign in again."
    if found is not None:
        if await too_many(ledger, f"code:{found.email}", 10):
            problem, ticket = "Too many attempts. Please wait a minute.", ""
            await note_refused(
                ledger, "second factor locked", found.email, peer_address(request), locked="account"
            )
        elif await check_totp(ledger, found.email, form.get("code", "")):
            await end_session(ledger, ticket)
            return await _let_in(request, found, to)
        else:
            problem = "This code is not right."
            await note_refused(ledger, "second factor refused", found.email, peer_address(request))
    else:
        ticket = ""
    return _form(request, problem=problem, ticket=ticket, to=to)


async def _let_in(request: Ask, person: Person, to: str) -> Redirect:
    engine = engine_of(request)
    # Whatever the browser held before is over: nobody's session is taken along.
    await end_session(engine.ledger, request.cookies.get(COOKIE, ""))
    secret = await create_session(
        engine.ledger,
        person,
        limits=limits_of(request),
        address=peer_address(request),
        agent=request.headers.get("user-agent", ""),
    )
    await audit.append(
        engine.ledger,
        actor=person.email,
        action="signed in",
        facts={"address": peer_address(request)},
    )
    cookie = Cookie(
        key=COOKIE, value=secret, path="/", httponly=True, samesite="lax",
        secure=is_secure(request),
    )  # fmt: skip
    return Redirect(to, status_code=303, cookies=[cookie])


@post("/sign-out", status_code=303)
async def sign_out(request: Ask) -> Redirect:
    """The end of this session."""
    await signed_in(request)
    await end_session(engine_of(request).ledger, request.cookies.get(COOKIE, ""))
    return Redirect("/sign-in", status_code=303)


HANDLERS = [sign_in_page, sign_in_now, sign_in_code, sign_out]
