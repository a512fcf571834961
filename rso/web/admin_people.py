"""What an administrator does for people and sources: second factor, sessions, tokens."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.core.errors import ConfigError
from rso.ledger import audit
from rso.ledger.second_factor import end_totp
from rso.ledger.sessions import end_sessions
from rso.ledger.site import all_sources
from rso.ledger.tokens import create_token, revoke_token, tokens
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


@post("/admin/people/{email:str}/{action:str}", status_code=303)
async def act_on_person(request: Ask, email: FromPath[str], action: FromPath[str]) -> Redirect:
    """Take a lost second factor away, or end somebody's sessions."""
    me = await signed_in(request)
    me.require()
    await checked_form(request)
    ledger = engine_of(request).ledger
    if not await ledger.fetch("SELECT id FROM user_account WHERE email = ?", email):
        raise NotFoundException("nobody has this address")
    if action == "second-factor":
        await end_totp(ledger, email)
        await end_sessions(ledger, email)
        done = "second factor reset"
    elif action == "sessions":
        await end_sessions(ledger, email)
        done = "sessions ended"
    else:
        raise NotFoundException("no such action")
    await audit.append(ledger, actor=me.person.email, action=done, facts={"person": email})
    return Redirect(f"/admin/users/edit/{email}", status_code=303)


async def _show(request: Ask, me: Identity, *, problem: str = "", token: str = "") -> Template:
    ledger = engine_of(request).ledger
    sources = [s for s in await all_sources(ledger) if s.channel == "http_upload"]
    made = page(
        request, "admin_tokens.html", me, tokens=await tokens(ledger), sources=sources,
        problem=problem, token=token,
    )  # fmt: skip
    if problem:
        made.status_code = 422
    return made


@get("/admin/tokens")
async def token_page(request: Ask) -> Template:
    """Every token in use, and making one for a source."""
    me = await signed_in(request)
    me.require()
    return await _show(request, me)


@post("/admin/tokens", status_code=200)
async def change_tokens(request: Ask) -> Response[Any]:
    """Make a source's token, shown this once, or end anybody's."""
    me = await signed_in(request)
    me.require()
    form = await checked_form(request)
    ledger, actor = engine_of(request).ledger, me.person.email
    if form.get("revoke"):
        if await revoke_token(ledger, form["revoke"]):
            await audit.append(
                ledger, actor=actor, action="token ended", facts={"token": form["revoke"]}
            )
        return Redirect("/admin/tokens", status_code=303)
    source, name = form.get("source", ""), form.get("name", "")[:100]
    try:
        token = await create_token(ledger, source=source, name=name)
    except ConfigError as exc:
        return await _show(request, me, problem=f"{exc}".capitalize() + ".")
    await audit.append(
        ledger, actor=actor, action="token made", facts={"source": source, "name": name}
    )
    return await _show(request, me, token=token)


HANDLERS = [act_on_person, token_page, change_tokens]
