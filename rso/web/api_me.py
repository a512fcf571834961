"""The caller as JSON: who they are, where and of what they are told, their sessions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import Request, delete, get, post, put
from litestar.exceptions import (
    ClientException,
    HTTPException,
    NotFoundException,
    PermissionDeniedException,
)
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from rso.core.errors import ConfigError, TransportError
from rso.core.notifying import EVENTS, parse_quiet
from rso.engine.prove import send_code
from rso.ledger.contacts import (
    confirm_contact,
    contacts_of,
    remove_contact,
    save_preferences,
)
from rso.ledger.people import too_many
from rso.ledger.sessions import end_one_session, end_other_sessions, sessions_of
from rso.web.auth import COOKIE, Identity, engine_of, signed_in
from rso.web.client import limits_of

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


class Me(Struct, frozen=True, kw_only=True):
    """Who asks; ``facilities`` is ``null`` for those who see every one."""

    email: str
    name: str
    role: str
    facilities: list[str] | None


class ContactView(Struct, frozen=True, kw_only=True):
    """An address of one's own; the first that works is used.

    Attributes:
        proven: Its code was brought back; nothing is sent there before.
        opted_out: Its owner left by the link, or the word, of a message.
        events: What it is told of; none: what the role is told.
        quiet: Hours without messages, as ``22:00-07:00``.
        breaks_quiet: What may come then: ``yes`` also what is urgent, ``no`` nothing, empty: what
            one is told as the one on call.
    """

    id: str
    channel: str
    address: str
    proven: bool
    opted_out: bool
    events: list[str]
    quiet: str
    timezone: str
    breaks_quiet: str


class Contacts(Struct, frozen=True, kw_only=True):
    """The caller's own contacts, the preferred first, and the channels that there are."""

    contacts: list[ContactView]
    channels: list[str]


class NewContact(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one wants to be told as well; a number with its country's code."""

    channel: Annotated[str, Meta(max_length=32)]
    address: Annotated[str, Meta(min_length=1, max_length=254)]


class Code(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The code that was sent to an address."""

    code: Annotated[str, Meta(max_length=16)]


class Preferences(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a contact is told and when; the fields of ``ContactView``."""

    events: Annotated[list[str], Meta(max_length=20)] = []
    quiet: Annotated[str, Meta(pattern=r"^(\d\d:\d\d-\d\d:\d\d)?$")] = ""
    timezone: Annotated[str, Meta(max_length=64)] = ""
    breaks_quiet: Literal["", "yes", "no"] = ""


class SessionView(Struct, frozen=True, kw_only=True):
    """An open session; ``own`` is the one that asks."""

    id: str
    created_at: datetime
    seen_at: datetime
    address: str
    agent: str
    own: bool


class Sessions(Struct, frozen=True, kw_only=True):
    """The caller's open sessions, the oldest first."""

    sessions: list[SessionView]


@get("/api/me")
async def api_me(request: Ask) -> Me:
    """Who asks."""
    person = (await signed_in(request)).person
    return Me(
        email=person.email,
        name=person.name,
        role=person.role,
        facilities=None if person.facilities is None else list(person.facilities),
    )


async def _contacts(request: Ask, email: str) -> Contacts:
    engine = engine_of(request)
    return Contacts(
        contacts=[
            ContactView(
                id=str(row["id"]),
                proven=row["verified_at"] is not None,
                opted_out=bool(row["opted_out"]),
                events=row["events"].split(),
                **{name: row[name] for name in ("channel", "address", "quiet", "timezone",
                                                "breaks_quiet")},
            )
            for row in await contacts_of(engine.ledger, email)
        ],
        channels=sorted(engine.plugins.notifiers),
    )  # fmt: skip


@get("/api/me/contacts")
async def api_contacts(request: Ask) -> Contacts:
    """Where and of what the caller is told."""
    return await _contacts(request, (await signed_in(request)).person.email)


@post("/api/me/contacts")
async def api_add_contact(request: Ask, data: JSONBody[NewContact]) -> Contacts:
    """Add an address; a code goes there, which `confirm` takes."""
    email = (await signed_in(request)).person.email
    engine = engine_of(request)
    if data.channel not in engine.plugins.notifiers:
        raise ConfigError("no such channel is configured")
    if await too_many(engine.ledger, f"contact:{email}"):
        raise HTTPException("too many codes; please wait a minute", status_code=429)
    try:
        await send_code(engine, email, data.channel, data.address)
    except TransportError as exc:
        raise HTTPException(str(exc), status_code=503) from exc
    return await _contacts(request, email)


async def _own(request: Ask, contact: str) -> str:
    """The caller's email, when it is one of their contacts."""
    email = (await signed_in(request)).person.email
    rows = await contacts_of(engine_of(request).ledger, email)
    if not any(str(row["id"]) == contact for row in rows):
        raise NotFoundException("no such contact")
    return email


@post("/api/me/contacts/{contact:str}/confirm", status_code=200)
async def api_confirm_contact(
    request: Ask, contact: FromPath[str], data: JSONBody[Code]
) -> Contacts:
    """Prove an address by its code; five wrong ones end it."""
    email = await _own(request, contact)
    if not await confirm_contact(engine_of(request).ledger, email, contact, data.code):
        raise ClientException("the code is wrong or too old")
    return await _contacts(request, email)


@put("/api/me/contacts/{contact:str}")
async def api_save_contact(
    request: Ask, contact: FromPath[str], data: JSONBody[Preferences]
) -> Contacts:
    """Say what an address is told, and when not."""
    email = await _own(request, contact)
    if unknown := sorted(set(data.events) - set(EVENTS)):
        raise ConfigError(f"no event is called {unknown[0]}")
    parse_quiet(data.quiet, data.timezone)
    await save_preferences(
        engine_of(request).ledger,
        email,
        contact,
        events=" ".join(event for event in EVENTS if event in data.events),
        quiet=data.quiet,
        timezone=data.timezone,
        breaks_quiet=data.breaks_quiet,
    )
    return await _contacts(request, email)


@delete("/api/me/contacts/{contact:str}", status_code=204)
async def api_remove_contact(request: Ask, contact: FromPath[str]) -> None:
    """Forget an address."""
    email = await _own(request, contact)
    await remove_contact(engine_of(request).ledger, email, contact)


@get("/api/me/sessions")
async def api_sessions(request: Ask) -> Sessions:
    """The caller's open sessions."""
    me = await signed_in(request)
    rows = await sessions_of(
        engine_of(request).ledger,
        me.person.email,
        limits=limits_of(request),
        secret=request.cookies.get(COOKIE, "") if me.csrf else "",
    )
    return Sessions(sessions=[SessionView(**row) for row in rows])


async def _in_session(request: Ask) -> Identity:
    me = await signed_in(request)
    if not me.csrf:
        raise PermissionDeniedException("a token cannot change this; please sign in")
    return me


@delete("/api/me/sessions", status_code=204)
async def api_end_sessions(request: Ask) -> None:
    """End every session but the one that asks; not with a token."""
    me = await _in_session(request)
    ledger = engine_of(request).ledger
    await end_other_sessions(ledger, me.person.email, request.cookies.get(COOKIE, ""))


@delete("/api/me/sessions/{session:str}", status_code=204)
async def api_end_session(request: Ask, session: FromPath[str]) -> None:
    """End one session of one's own; not with a token."""
    me = await _in_session(request)
    if not await end_one_session(engine_of(request).ledger, me.person.email, session):
        raise NotFoundException("no session in use has this id")


HANDLERS = [
    api_me,
    api_contacts,
    api_add_contact,
    api_confirm_contact,
    api_save_contact,
    api_remove_contact,
    api_sessions,
    api_end_sessions,
    api_end_session,
]
