"""Telling people: from an exam, one's own contacts, what became of messages, and leaving."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Template

from rso.core.errors import ConfigError, TransportError
from rso.core.notifying import EVENTS, always_told, mask, parse_quiet
from rso.engine.notify import (
    exam_notifications,
    naming_channels,
    retry_notification,
)
from rso.engine.prove import send_code
from rso.ledger.contacts import (
    confirm_contact,
    contacts_of,
    leave,
    owner_of_leave_key,
    remove_contact,
    save_preferences,
)
from rso.ledger.lists import message_counts
from rso.ledger.people import too_many
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page
from rso.web.typed import time_in

__all__ = ["HANDLERS", "SENDERS", "chosen_people", "outcome_of", "read_outcome"]

Ask = Request[Any, Any, Any]
_PAGE = 100
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
SENDERS = ("customer", "technician", "coordinator")


def chosen_people(form: dict[str, str]) -> dict[str, list[str]]:
    """Channels by person from the boxes ``notify:EMAIL:CHANNEL`` of a form."""
    chosen: dict[str, list[str]] = {}
    for name in form:
        if name.startswith("notify:"):
            email, _, channel = name.removeprefix("notify:").rpartition(":")
            chosen.setdefault(email, []).append(channel)
    return chosen


def outcome_of(told: int, left_out: int) -> str:
    """How many were told, for the address of a page; who, it knows itself."""
    return urlencode({"told": told, "left_out": left_out})


def read_outcome(request: Ask, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What a page says after people were told: who, by the exam's newest messages; or nothing."""
    counts = [request.query_params.get(name, "") for name in ("told", "left_out")]
    if not all(text.isascii() and text.isdecimal() and len(text) <= 4 for text in counts):
        return None
    people = dict.fromkeys(row["recipient"] for row in rows if row["event"] == "manual")
    return {"people": list(people)[: int(counts[0])], "left_out": int(counts[1])}


@get("/me")
async def my_contacts(request: Ask) -> Template:
    """Where and of what I am told."""
    return await _mine(request, await signed_in(request))


async def _mine(
    request: Ask,
    me: Identity,
    problem: str = "",
    *,
    typed: Mapping[str, str] | None = None,
    at: str = "",
) -> Template:
    """One's contacts; after a problem with what was ``typed``, at a contact or to add one."""
    engine = engine_of(request)
    contacts = await contacts_of(engine.ledger, me.person.email)
    if typed is not None and at:
        said = {**_preferences(typed), "code": typed.get("code", "")}
        contacts = [{**row, **said} if str(row["id"]) == at else row for row in contacts]
    made = page(
        request,
        "me.html",
        me,
        contacts=contacts,
        channels=sorted(engine.plugins.notifiers),
        naming=await naming_channels(engine),
        events=[
            event
            for event in EVENTS
            if event != "manual" and not always_told(me.person.role, event)
        ],
        problem=problem,
        typed={} if typed is None or at else typed,
        at=at,
    )
    if problem:
        made.status_code = 422
    return made


def _preferences(form: Mapping[str, str]) -> dict[str, str]:
    """What a contact is told and when, as a form says it."""
    consent = form.get("breaks_quiet", "")
    return {
        "events": " ".join(event for event in EVENTS if form.get(f"event:{event}")),
        "quiet": form.get("quiet", ""),
        "timezone": form.get("timezone", ""),
        "breaks_quiet": consent if consent in {"yes", "no"} else "",
    }


@post("/me/contacts", status_code=200)
async def add_mine(request: Ask) -> Response[Any]:
    """Add an address; a code goes there, and comes back by hand."""
    me = await signed_in(request)
    form = await checked_form(request)
    engine = engine_of(request)
    channel = form.get("channel", "")
    if channel not in engine.plugins.notifiers:
        return await _mine(request, me, "Choose a channel.", typed=form)
    if await too_many(engine.ledger, f"contact:{me.person.email}"):
        return await _mine(request, me, "Too many codes; please wait a minute.", typed=form)
    try:
        await send_code(engine, me.person.email, channel, form.get("address", ""))
    except (ConfigError, TransportError) as exc:
        return await _mine(request, me, f"{exc}".capitalize() + ".", typed=form)
    return Redirect("/me", status_code=303)


@post("/me/contacts/{contact:str}/{action:str}", status_code=200)
async def change_mine(request: Ask, contact: FromPath[str], action: FromPath[str]) -> Response[Any]:
    """Confirm an address by its code, change what it is told, or remove it."""
    me = await signed_in(request)
    form = await checked_form(request)
    ledger = engine_of(request).ledger
    owner = me.person.email
    if not any(str(row["id"]) == contact for row in await contacts_of(ledger, owner)):
        raise NotFoundException("no such contact")
    if action == "confirm":
        if not await confirm_contact(ledger, owner, contact, form.get("code", "")):
            problem = "The code is wrong or too old."
            return await _mine(request, me, problem, typed=form, at=contact)
    elif action == "save":
        wanted = _preferences(form)
        try:
            parse_quiet(wanted["quiet"], wanted["timezone"])
        except ConfigError as exc:
            problem = f"{exc}".capitalize() + "."
            return await _mine(request, me, problem, typed=form, at=contact)
        await save_preferences(ledger, owner, contact, **wanted)
    elif action == "remove":
        await remove_contact(ledger, owner, contact)
    else:
        raise NotFoundException("no such action")
    return Redirect("/me", status_code=303)


@get("/notifications")
async def all_messages(
    request: Ask, at: FromQuery[str] = "", before: FromQuery[str] = ""
) -> Template:
    """What became of every message, a page at a time: after that of ``at`` with this key."""
    me = await signed_in(request)
    me.require("coordinator", "auditor")
    moment = time_in(at)
    if moment is not None:
        moment = min(max(moment, _EARLIEST), _LATEST)  # what every database can compare
    rows = await exam_notifications(
        engine_of(request).ledger, facilities=me.person.facilities,
        before=(moment, before) if moment and before else None, limit=_PAGE + 1,
    )  # fmt: skip
    return page(
        request, "notifications.html", me, rows=rows[:_PAGE], more=len(rows) > _PAGE,
        newest=not before,
    )  # fmt: skip


@get("/notifications/tile")
async def messages_tile(request: Ask) -> Template:
    """The last day's messages by channel and state, for the dashboard."""
    me = await signed_in(request)
    me.require("coordinator", "auditor")
    rows = await message_counts(engine_of(request).ledger, me.person.facilities)
    return page(request, "messages_tile.html", me, rows=rows)


@post("/notifications/{message:str}", status_code=303)
async def retry_message(request: Ask, message: FromPath[str]) -> Redirect:
    """Send a message that failed again."""
    me = await signed_in(request)
    me.require("coordinator")
    ledger = engine_of(request).ledger
    if await exam_notifications(ledger, facilities=me.person.facilities, message=message):
        await retry_notification(ledger, message, actor=me.person.email)
    return Redirect("/notifications", status_code=303)


@get("/leave/{key:str}")
async def leave_page(request: Ask, key: FromPath[str]) -> Template:
    """Ask before nothing more is sent; a mail scanner that follows links changes nothing."""
    found = await owner_of_leave_key(engine_of(request).ledger, key)
    if found is None:
        raise NotFoundException("this link is no longer known")
    return page(request, "leave.html", None, address=mask(found["address"]), key=key, done=False)


@post("/leave/{key:str}", status_code=200)
async def leave_now(request: Ask, key: FromPath[str]) -> Template:
    """Send nothing more to this address."""
    if not await leave(engine_of(request).ledger, key):
        raise NotFoundException("this link is no longer known")
    return page(request, "leave.html", None, address="", key=key, done=True)


HANDLERS = [
    my_contacts,
    add_mine,
    change_mine,
    all_messages,
    messages_tile,
    retry_message,
    leave_page,
    leave_now,
]
