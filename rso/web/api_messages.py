"""Messages as JSON, and what needs a person: list, send again, acknowledge."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from litestar import Request, get, post
from litestar.exceptions import (
    ClientException,
    NotFoundException,
    PermissionDeniedException,
)
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct, convert

from rso.engine.exams import find_exam
from rso.engine.matters import acknowledge, exam_matters, find_matter, may_acknowledge
from rso.engine.notify import (
    exam_notifications,
    notify_people,
    reachable,
    retry_notification,
)
from rso.web.auth import Identity, engine_of, signed_in
from rso.web.cursors import cursor_of, place_of
from rso.web.notifying import SENDERS

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
Cursor = Annotated[str, QueryParameter(max_length=64, description="An answer's `next`.")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="Messages on a page.")]
_MOST = 200  # messages of one exam


class MessageLine(Struct, frozen=True, kw_only=True):
    """One try to deliver a message: to whom, the address masked, and what was said to it."""

    at: datetime
    channel: str
    to: str
    result: str


class MessageView(Struct, frozen=True, kw_only=True):
    """What became of one message, try by try."""

    id: str
    exam_number: str
    event: str
    recipient: str
    channel: str
    state: str
    created_at: datetime
    history: list[MessageLine]


class Messages(Struct, frozen=True, kw_only=True):
    """A page of messages, the newest first; ``next`` is the ``cursor`` of the page that follows."""

    messages: list[MessageView]
    next: str | None


class ReachableView(Struct, frozen=True, kw_only=True):
    """Somebody who can be told of an exam, and by which channels."""

    email: str
    name: str
    role: str
    channels: list[str]


class ExamMessages(Struct, frozen=True, kw_only=True):
    """An exam's messages, the newest first, and who can be told; ``more`` where older are not here.

    ``GET /api/notifications`` reads them to the oldest.
    """

    notifications: list[MessageView]
    more: bool
    reachable: list[ReachableView]


class People(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to tell: channels by email."""

    people: dict[str, list[str]]
    note: Annotated[str, Meta(max_length=2000)] = ""


class MatterView(Struct, frozen=True, kw_only=True):
    """Something that needs a person.

    Attributes:
        state: ``done`` when somebody sees to it, ``failed`` when nobody answered, else it waits.
        seen_to_by: Who does; empty: nobody has said so.
        may_acknowledge: Whether the caller may say so.
        history: Who was told, and who answered.
    """

    id: str
    event: str
    facility: str
    exam_number: str
    state: str
    seen_to_by: str
    may_acknowledge: bool
    created_at: datetime
    history: list[dict[str, str]]


class Matters(Struct, frozen=True, kw_only=True):
    """What of an exam needed a person, the newest first."""

    matters: list[MatterView]


def _message(row: Mapping[str, Any]) -> MessageView:
    return MessageView(
        id=str(row["id"]),
        exam_number=row.get("number") or "",
        event=row["event"],
        recipient=row["recipient"],
        channel=row["channel"],
        state=row["state"],
        created_at=row["created_at"],
        history=convert(row["history"] or [], list[MessageLine]),
    )


@get("/api/notifications")
async def api_messages(request: Ask, cursor: Cursor = "", limit: Limit = 200) -> Messages:
    """What became of messages, of the caller's facilities, a page at a time to the oldest."""
    me = await signed_in(request)
    me.require("coordinator", "auditor")
    rows = await exam_notifications(
        engine_of(request).ledger,
        facilities=me.person.facilities,
        before=place_of(cursor) if cursor else None,
        limit=limit + 1,
    )
    following = None
    if len(rows) > limit:
        following = cursor_of(rows[limit - 1]["created_at"], rows[limit - 1]["id"])
    return Messages(messages=[_message(row) for row in rows[:limit]], next=following)


@post("/api/notifications/{message:str}/retry", status_code=200)
async def api_retry_message(request: Ask, message: FromPath[str]) -> MessageView:
    """Send a message that failed again."""
    me = await signed_in(request)
    me.require("coordinator")
    ledger = engine_of(request).ledger

    async def found() -> dict[str, Any]:
        rows = await exam_notifications(
            ledger, facilities=me.person.facilities, message=message, limit=1
        )
        if not rows:
            raise NotFoundException("no such message")
        return rows[0]

    await found()
    if not await retry_notification(ledger, message, actor=me.person.email):
        raise ClientException("only a message that failed is sent again", status_code=409)
    return _message(await found())


@post("/api/exams/{number:str}/notifications", status_code=200)
async def api_notify(request: Ask, number: FromPath[str], data: JSONBody[People]) -> dict[str, int]:
    """Tell people of an exam; those out of reach are left out of the count."""
    me = await signed_in(request)
    me.require(*SENDERS)
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    told = await notify_people(engine, exam, data.people, actor=me.person.email, note=data.note)
    return {"messages": told.messages}


@get("/api/exams/{number:str}/notifications")
async def api_notifications(request: Ask, number: FromPath[str]) -> ExamMessages:
    """What became of an exam's messages, and who can be told."""
    me = await signed_in(request)
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    rows = await exam_notifications(engine.ledger, exam.id, limit=_MOST + 1)
    return ExamMessages(
        notifications=[_message(row) for row in rows[:_MOST]],
        more=len(rows) > _MOST,
        reachable=convert(await reachable(engine, exam.facility), list[ReachableView]),
    )


def _matter(row: Mapping[str, Any], me: Identity, number: str) -> MatterView:
    return MatterView(
        id=str(row["id"]),
        event=row["event"],
        facility=row["facility"],
        exam_number=number,
        state=row["state"],
        seen_to_by=row["recipient"] if row["state"] == "done" else "",
        may_acknowledge=row["state"] != "done" and may_acknowledge(me.person, row),
        created_at=row["created_at"],
        history=row["history"],
    )


@get("/api/exams/{number:str}/matters")
async def api_exam_matters(request: Ask, number: FromPath[str]) -> Matters:
    """What of an exam needs a person, and who sees to it."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    rows = await exam_matters(ledger, exam.id)
    return Matters(matters=[_matter(row, me, exam.number) for row in rows])


async def _find(request: Ask, me: Identity, matter: str) -> dict[str, Any]:
    found = await find_matter(engine_of(request).ledger, matter, facilities=me.person.facilities)
    if found is None:
        raise NotFoundException("this is not known any more")
    return found


@get("/api/matters/{matter:str}")
async def api_matter(request: Ask, matter: FromPath[str]) -> MatterView:
    """What a message's link leads to."""
    me = await signed_in(request)
    found = await _find(request, me, matter)
    return _matter(found, me, found["number"] or "")


@post("/api/matters/{matter:str}/acknowledge", status_code=200)
async def api_acknowledge(request: Ask, matter: FromPath[str]) -> MatterView:
    """Say that one sees to it: nobody else is told. Who was first stays."""
    me = await signed_in(request)
    found = await _find(request, me, matter)
    if not may_acknowledge(me.person, found):
        raise PermissionDeniedException("your role does not allow this")
    await acknowledge(engine_of(request).ledger, found, me.person.email)
    found = await _find(request, me, matter)
    return _matter(found, me, found["number"] or "")


HANDLERS = [
    api_messages,
    api_retry_message,
    api_notify,
    api_notifications,
    api_exam_matters,
    api_matter,
    api_acknowledge,
]
