"""One's own safety: the second factor, open sessions, and a new password."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from litestar import Request, Response, get, post
from litestar.exceptions import NotFoundException, PermissionDeniedException
from litestar.params import FromPath
from litestar.response import Redirect, Template
from msgspec import Struct

from rso.ledger import audit
from rso.ledger.exams import now
from rso.ledger.people import SHORTEST_PASSWORD, change_password, too_many
from rso.ledger.second_factor import (
    begin_totp,
    check_totp,
    confirm_totp,
    end_totp,
    has_totp,
    provisioning_uri,
)
from rso.ledger.sessions import end_one_session, end_other_sessions, sessions_of
from rso.ledger.tokens import create_token, revoke_token, revoke_tokens_of, tokens
from rso.web.auth import COOKIE, Identity, checked_form, engine_of, signed_in
from rso.web.client import limits_of
from rso.web.codes import qr_svg
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


async def _show(
    request: Ask,
    me: Identity,
    *,
    problem: str = "",
    codes: list[str] | None = None,
    token: str = "",
) -> Template:
    engine = engine_of(request)
    email = me.person.email
    enrolled = await has_totp(engine.ledger, email)
    # What was shown before this visit is over; an answer to the page's own form keeps it.
    keep = request.method == "POST"
    secret = "" if enrolled else await begin_totp(engine.ledger, email, keep=keep)
    uri = provisioning_uri(secret, email, engine.settings.site.name) if secret else ""
    made = page(
        request,
        "security.html",
        me,
        enrolled=enrolled,
        secret=secret,
        qr=qr_svg(uri) if uri else "",
        sessions=await sessions_of(
            engine.ledger,
            email,
            limits=limits_of(request),
            secret=request.cookies.get(COOKIE, ""),
        ),
        tokens=await tokens(engine.ledger, email=email),
        token=token,
        problem=problem,
        codes=codes or [],
    )
    if problem:
        made.status_code = 422
    return made


async def _in_session(request: Ask) -> Identity:
    me = await signed_in(request)
    if not me.csrf:
        raise PermissionDeniedException("a token cannot see or change this; please sign in")
    return me


@get("/me/security")
async def security_page(request: Ask) -> Template:
    """The second factor and the open sessions; the secret to enrol with is for no token."""
    return await _show(request, await _in_session(request))


@post("/me/security/{action:str}", status_code=200)
async def change_security(request: Ask, action: FromPath[str]) -> Response[Any]:
    """Change the second factor, the password, one's sessions or one's tokens."""
    me = await _in_session(request)
    form = await checked_form(request)
    email = me.person.email
    if action not in _ACTIONS:
        raise NotFoundException("no such action")
    if await too_many(engine_of(request).ledger, f"security:{email}", 10):
        return await _show(request, me, problem="Too many tries; please wait a minute.")
    said = await _ACTIONS[action](request, email, form)
    if isinstance(said, str):
        return await _show(request, me, problem=said)
    if said:
        return await _show(request, me, **said)
    return Redirect("/me/security", status_code=303)


# Each returns in words why not, or what is shown this once.
_Answer = str | dict[str, Any]
_Form = dict[str, str]


async def _begin(request: Ask, email: str, form: _Form) -> _Answer:
    ledger = engine_of(request).ledger
    codes = await confirm_totp(ledger, email, form.get("code", ""))
    if codes is None:
        return "This code is not right."
    await audit.append(ledger, actor=email, action="second factor begun")
    return {"codes": codes}


async def _end(request: Ask, email: str, form: _Form) -> _Answer:
    ledger = engine_of(request).ledger
    if not await check_totp(ledger, email, form.get("code", "")):
        return "This code is not right."
    await end_totp(ledger, email)
    await audit.append(ledger, actor=email, action="second factor ended")
    return {}


async def _password(request: Ask, email: str, form: _Form) -> _Answer:
    ledger = engine_of(request).ledger
    if len(form.get("new", "")) < SHORTEST_PASSWORD:
        return "A password has at least ten characters."
    if not await change_password(ledger, email, form.get("old", ""), form["new"]):
        return "The old password is not right."
    await end_other_sessions(ledger, email, request.cookies.get(COOKIE, ""))
    await audit.append(ledger, actor=email, action="password changed")
    if form.get("tokens"):
        await revoke_tokens_of(ledger, email, actor=email)
    return {}


async def _token(request: Ask, email: str, form: _Form) -> _Answer:
    name = form.get("name", "")[:100]
    if not name:
        return "Say what the token is for."
    ledger = engine_of(request).ledger
    token = await create_token(ledger, email=email, name=name)
    await audit.append(ledger, actor=email, action="token made", facts={"name": name})
    return {"token": token}


async def _revoke(request: Ask, email: str, form: _Form) -> _Answer:
    ledger = engine_of(request).ledger
    if not await revoke_token(ledger, form.get("token", ""), email=email):
        return "This token has ended already."
    await audit.append(ledger, actor=email, action="token ended")
    return {}


async def _session(request: Ask, email: str, form: _Form) -> _Answer:
    ended = await end_one_session(engine_of(request).ledger, email, form.get("session", ""))
    return {} if ended else "This session has ended already."


async def _sessions(request: Ask, email: str, form: _Form) -> _Answer:  # noqa: ARG001
    await end_other_sessions(engine_of(request).ledger, email, request.cookies.get(COOKIE, ""))
    return {}


_ACTIONS: dict[str, Callable[[Ask, str, _Form], Awaitable[_Answer]]] = {
    "begin": _begin,
    "end": _end,
    "password": _password,
    "token": _token,
    "revoke": _revoke,
    "session": _session,
    "sessions": _sessions,
}


class SessionClock(Struct, frozen=True, kw_only=True):
    """What a page knows of its session.

    Attributes:
        account: Whose it is now; another tab may have signed somebody else in.
        csrf: The token that forms send now.
        idle_seconds: How long it lasts without use.
        left_seconds: How long it lasts at most.
    """

    account: str
    csrf: str
    idle_seconds: int
    left_seconds: int


def _clock(request: Ask, me: Identity) -> SessionClock:
    at = now()
    idle = me.seen_at + limits_of(request).idle - at if me.seen_at else timedelta()
    left = me.ends_at - at if me.ends_at else timedelta()
    return SessionClock(
        account=me.person.email,
        csrf=me.csrf,
        idle_seconds=max(round(idle.total_seconds()), 0),
        left_seconds=max(int(left.total_seconds()), 0),
    )


@get("/me/session")
async def session_clock(request: Ask) -> SessionClock:
    """How long the session lasts; with the header ``X-Unattended`` asking is no use of it."""
    return _clock(request, await signed_in(request))


@post("/me/session", status_code=200)
async def extend_session(request: Ask) -> SessionClock:
    """Use the session, so that it goes on; never beyond its latest end."""
    return _clock(request, await signed_in(request))


HANDLERS = [security_page, change_security, session_clock, extend_session]
