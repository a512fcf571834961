"""Administration: facilities with their sources, radiologists, people, routes and plugins.

Every form changes one entry of the site document and loads it, so that a page can do what
``rso load`` can, and is checked as that is.
"""

from datetime import UTC, datetime
from typing import Any

import tomlkit
from litestar import Request, Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.core.errors import ConfigError
from rso.core.exam import Priority
from rso.engine.check import test_destination
from rso.engine.explain import explain_route
from rso.engine.site import renew_sources
from rso.ledger import Ledger, audit
from rso.ledger.people import check_new_password, is_disabled, set_disabled
from rso.ledger.second_factor import has_totp
from rso.ledger.sessions import end_sessions, sessions_of
from rso.ledger.site import last_images, load_site, lock_site
from rso.ledger.site_document import Role
from rso.ledger.site_export import export_site
from rso.ledger.tokens import revoke_tokens_of
from rso.web.admin_forms import check_options, controls, read_entry, seal_form
from rso.web.admin_on_call import call_rows, staff_of
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.client import limits_of
from rso.web.meanwhile import is_stale, version_of
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
Entry = dict[str, Any]
_ROLES = Role.__args__  # type: ignore[attr-defined]
_EMPTY_ROWS = 2
_CHANNELS = ("dicom_scp", "ftp", "http_upload")  # offered also before their section is there
_SECTIONS = {"facilities": "facility", "radiologists": "radiologist", "users": "user"}
_KEYS = {"facility": "code", "radiologist": "code", "user": "email"}


async def _admin(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require()
    return me


@get("/admin")
async def overview(request: Ask) -> Template:
    """Everything that is set up, and what is wrong with it."""
    me = await _admin(request)
    engine = engine_of(request)
    return page(
        request,
        "admin.html",
        me,
        document=await export_site(engine.ledger),
        last=await last_images(engine.ledger),
        plugins=engine.plugins.describe(),
        done=request.query_params.get("done", ""),
    )


async def _stands(request: Ask, section: str, key: str) -> Entry | None:
    document = await export_site(engine_of(request).ledger)
    name = _KEYS[section]
    return next((entry for entry in document.get(section, []) if entry[name] == key), None)


async def _find(request: Ask, section: str, key: str) -> Entry:
    found = await _stands(request, section, key)
    if found is None:
        raise NotFoundException(f"no {section} is called like that")
    return dict(found)


async def _version(ledger: Ledger, section: str, entry: Entry) -> str:
    """Of what the form of an entry shows; people look after contacts and passwords themselves."""
    if section != "user":
        return version_of(entry)
    shown = {name: entry.get(name) for name in ("email", "name", "role", "facilities")}
    return version_of({**shown, "disabled": await is_disabled(ledger, str(entry["email"]))})


async def _edit(
    request: Ask,
    me: Identity,
    section: str,
    entry: Entry,
    *,
    new: bool,
    problem: str = "",
    typed: dict[str, str] | None = None,
    changed: bool = False,
) -> Template:
    """The form; after ``typed`` as it was sent, with what is wrong or ``changed`` meanwhile."""
    engine = engine_of(request)
    document = await export_site(engine.ledger)
    email = str(entry.get("email", ""))
    if typed is not None and not changed:
        shown = typed.get("shown", "")
    elif new:
        shown = ""
    else:
        there = await _find(request, section, str(entry[_KEYS[section]]))
        shown = await _version(engine.ledger, section, there)
    barred = await is_disabled(engine.ledger, email) if typed is None else typed.get("disabled")
    made = page(
        request,
        f"admin_{section}.html",
        me,
        entry=entry,
        new=new,
        problem=problem,
        document=document,
        roles=_ROLES,
        channels=[*_CHANNELS, *sorted(engine.plugins.receivers.keys() - _CHANNELS)],
        senders=sorted(engine.plugins.senders),
        controls=lambda sender, options: controls(engine.plugins.senders, sender, options),
        calls=call_rows(entry),
        empty_rows=_EMPTY_ROWS,
        staff=staff_of(document, str(entry.get("code", ""))),
        disabled=barred,
        shown=shown,
        changed=changed,
        totp=await has_totp(engine.ledger, email),
        sessions=len(await sessions_of(engine.ledger, email, limits=limits_of(request))),
    )
    if changed or problem:
        made.status_code = 409 if changed else 422
    return made


@get("/admin/{kind:str}/new")
async def new_entry(request: Ask, kind: FromPath[str]) -> Template:
    """An empty form."""
    me = await _admin(request)
    return await _edit(request, me, _section(kind), {}, new=True)


@get("/admin/{kind:str}/edit/{key:str}")
async def edit_entry(request: Ask, kind: FromPath[str], key: FromPath[str]) -> Template:
    """The form of an entry."""
    me = await _admin(request)
    section = _section(kind)
    return await _edit(request, me, section, await _find(request, section, key), new=False)


def _section(kind: str) -> str:
    if kind not in _SECTIONS:
        raise NotFoundException("there is no such list")
    return _SECTIONS[kind]


@post("/admin/{kind:str}/save", status_code=200)
async def save_entry(request: Ask, kind: FromPath[str]) -> Response[Any]:
    """Check and load what the form says; the form again where somebody changed it meanwhile."""
    me = await _admin(request)
    section = _section(kind)
    form = await checked_form(request)
    new = form.get("new") == "yes"
    if section == "user":
        form["email"] = form.get("email", "").lower()  # as the ledger keeps it
    key = form.get(_KEYS[section], "")
    ledger, senders = engine_of(request).ledger, engine_of(request).plugins.senders
    entry: Entry = {}
    sealed = await seal_form(section, form)
    try:
        async with ledger.transaction():
            await lock_site(ledger)
            old = {} if new else await _find(request, section, key)
            entry = read_entry(section, sealed, old, senders)
            if new and await _stands(request, section, key):
                raise ConfigError(f"there is a {section} called {key} already")
            changed = not new and is_stale(form, await _version(ledger, section, old))
            if not changed:
                check_options(entry, senders)
                await load_site(ledger, {section: [entry]})
                if section == "user":
                    await _keep_in(ledger, me, key, form, new=new)
                facts = {"kind": section, "key": key}
                actor = me.person.email
                await audit.append(ledger, actor=actor, action="site changed", facts=facts)
    except ConfigError as exc:
        return await _edit(request, me, section, entry, new=new, problem=str(exc), typed=form)
    if changed:
        return await _edit(request, me, section, entry, new=new, typed=form, changed=True)
    await renew_sources(engine_of(request))
    return Redirect(f"/admin?done={section}", status_code=303)


async def _keep_in(
    ledger: Ledger, me: Identity, email: str, form: dict[str, str], *, new: bool
) -> None:
    """Whether a person may sign in; a new password ends sessions and API tokens.

    Nobody locks themselves out, and a new password of one's own ends neither.
    """
    own = email == me.person.email
    if own and (form.get("disabled") or form.get("role") != "admin"):
        raise ConfigError("another administrator has to take this from you")
    password = form.get("password", "")
    if password or new:
        check_new_password(password)
    await set_disabled(ledger, email, disabled=bool(form.get("disabled")))
    if password and not own:
        await end_sessions(ledger, email)
        await revoke_tokens_of(ledger, email, actor=me.person.email)


@post("/admin/test/{code:str}", status_code=200)
async def test_entry(request: Ask, code: FromPath[str]) -> dict[str, Any]:
    """Ask a destination whether it is there (C-ECHO)."""
    await _admin(request)
    found = await test_destination(engine_of(request), code)
    return {"ok": found.ok, "detail": found.detail or ("it answers" if found.ok else "")}


def _moment(text: str) -> datetime:
    """A time in UTC as a form sends it; now when there is none."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


@get("/admin/route")
async def route_page(request: Ask) -> Template:
    """Where an exam like this would go."""
    me = await _admin(request)
    engine = engine_of(request)
    asked = request.query_params
    facility = asked.get("facility", "")
    found = None
    if facility:
        priority = asked.get("priority", "routine")
        found = await explain_route(
            engine,
            facility=facility,
            modality=asked.get("modality", ""),
            priority=Priority(priority) if priority in set(Priority) else Priority.ROUTINE,
            at=_moment(asked.get("at", "")),
        )
    return page(
        request, "admin_route.html", me, document=await export_site(engine.ledger), asked=asked,
        found=found, timed=bool(asked.get("at")),
    )  # fmt: skip


@get("/admin/site.toml")
async def download(request: Ask) -> Response[str]:
    """Everything as site.toml; passwords as hashes."""
    await _admin(request)
    text = tomlkit.dumps(await export_site(engine_of(request).ledger))
    headers = {"Content-Disposition": 'attachment; filename="site.toml"'}
    return Response(text, media_type="application/toml", headers=headers)


HANDLERS = [
    overview,
    new_entry,
    edit_entry,
    save_entry,
    test_entry,
    route_page,
    download,
]
