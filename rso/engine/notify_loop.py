"""Sending what was written down: quiet hours, retries, the next channel, and the end of it."""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from rso.core.delivery import backoff
from rso.core.errors import PermanentTransportError, RsoError, TransientTransportError
from rso.core.notifier import Notifier
from rso.core.notifying import breaks_quiet, parse_quiet
from rso.core.printable import printable
from rso.engine.context import Engine
from rso.engine.notices import notice_of, patient_line, write_message
from rso.engine.notify import said
from rso.engine.pace import Pace
from rso.ledger import audit
from rso.ledger.exams import exam_by_id, now
from rso.ledger.outbox import claim_outbox, give_back_outbox

__all__ = ["open_notifiers", "run_notifications", "send_due"]

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 120
_IDLE_SECONDS = 1.0
_SEND_SECONDS = 60.0
_TRIES_PER_CHANNEL = 4
_FOLLOW_SECONDS = 20.0
_FOLLOW_HOURS = 24
_AT_ONCE = 4
_BEYOND_PACE = (
    "(state = 'accepted' OR (SELECT e.priority FROM exam e WHERE e.id = outbox.exam) = 0)"
)
Row = dict[str, Any]


def open_notifiers(engine: Engine) -> dict[str, Notifier]:
    """One notifier for each configured channel; one that cannot be made is logged and left out."""
    found: dict[str, Notifier] = {}
    for name, (kind, config) in engine.plugins.notifiers.items():
        try:
            found[name] = kind(config)
        except Exception:  # its messages go by the next channel, and all other work goes on
            log.exception("notifier cannot be made", channel=name)
    return found


async def run_notifications(engine: Engine, owner: str, stop: asyncio.Event) -> None:
    """Send messages until ``stop`` is set."""
    # What an earlier life of this process was sending is sent again at once.
    await give_back_outbox(engine.ledger, "notify", owner.rsplit("/", 1)[0] + "/")
    notifiers = open_notifiers(engine)
    pace = Pace(engine.settings.notify.per_minute)
    try:
        while not stop.is_set():
            if not await send_due(engine, owner, notifiers, pace=pace):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _IDLE_SECONDS)
    finally:
        for notifier in notifiers.values():
            with contextlib.suppress(Exception):
                await notifier.close()


async def send_due(
    engine: Engine,
    owner: str,
    notifiers: Mapping[str, Notifier],
    *,
    at: datetime | None = None,
    pace: Pace | None = None,
) -> int:
    """Send or follow what is due; returns how many messages were looked at.

    Beyond the pace only STAT exams are told, and only what was sent is followed.
    """
    at = at or now()
    left = pace.left(at) if pace else _AT_ONCE
    rows = await claim_outbox(
        engine.ledger, owner, at, kind="notify", states=("queued", "accepted"),
        limit=min(left, _AT_ONCE) or _AT_ONCE, seconds=_LEASE_SECONDS,
        only="1 = 1" if left else _BEYOND_PACE,
    )  # fmt: skip
    if pace:
        pace.take(sum(row["state"] == "queued" for row in rows))
    # Each to its end, whatever becomes of the others: one that was handed over and not noted would
    # be sent again.
    results = await asyncio.gather(
        *(_handle(engine, owner, notifiers, row, at) for row in rows), return_exceptions=True
    )
    if faults := [result for result in results if isinstance(result, BaseException)]:
        raise faults[0]
    return len(rows)


async def _handle(
    engine: Engine, owner: str, notifiers: Mapping[str, Notifier], row: Row, at: datetime
) -> None:
    change = await (_follow if row["state"] == "accepted" else _send)(engine, notifiers, row, at)
    columns = ", ".join(f"{name} = ?" for name in change)
    async with engine.ledger.transaction():
        await engine.ledger.execute(
            f"UPDATE outbox SET {columns}, lease_owner = '', lease_until = NULL"  # noqa: S608
            " WHERE id = ? AND lease_owner = ?",
            *change.values(),
            row["id"],
            owner,
        )
        if change.get("state") == "failed":
            exam = await exam_by_id(engine.ledger, row["exam"]) if row["exam"] else None
            await audit.append(
                engine.ledger, actor="rso", action="notification failed",
                facility=exam.facility if exam else "", exam=exam.number if exam else "",
                facts={"event": row["event"], "recipient": row["recipient"]},
            )  # fmt: skip


async def _contact(engine: Engine, contact_id: str) -> Row | None:
    rows = await engine.ledger.fetch("SELECT * FROM contact WHERE id = ?", contact_id)
    return rows[0] if rows else None


async def _send(
    engine: Engine, notifiers: Mapping[str, Notifier], row: Row, at: datetime
) -> dict[str, Any]:
    payload = msgspec.json.decode(row["payload"])
    contact = await _contact(engine, payload["contact"])
    if at - row["created_at"] > timedelta(hours=engine.settings.notify.expire_hours):
        return _end(row, "failed", _history(row, contact, "too old to be sent"), at)
    if contact is None or contact["opted_out"] or contact["verified_at"] is None:
        return _next_channel(row, payload, "not reachable there any more", at, contact)
    quiet = parse_quiet(contact["quiet"], contact["timezone"])
    until = quiet.until(at) if quiet else None
    on_call = bool(payload.get("on_call"))
    if on_call and await _is_seen_to(engine, payload["matter"]):
        return _end(row, "cancelled", _history(row, contact, "somebody sees to it already"), at)
    if until is not None and not breaks_quiet(
        row["event"], payload["priority"], contact["breaks_quiet"], on_call=on_call
    ):
        return {"next_at": until}
    notifier = notifiers.get(contact["channel"])
    if notifier is None:
        return _next_channel(row, payload, "no plugin carries this channel", at, contact)
    return await _try(engine, notifier, row, payload, contact, at)


async def _is_seen_to(engine: Engine, matter: str) -> bool:
    rows = await engine.ledger.fetch("SELECT state FROM outbox WHERE id = ?", matter)
    return bool(rows and rows[0]["state"] == "done")


async def _try(
    engine: Engine, notifier: Notifier, row: Row, payload: dict[str, Any], contact: Row,
    at: datetime,
) -> dict[str, Any]:  # fmt: skip
    try:
        ticket = await _hand_over(engine, notifier, row, contact)
    except (TransientTransportError, TimeoutError) as exc:
        attempts = row["attempts"] + 1
        reason = str(exc) or "no answer in time"
        if attempts % _TRIES_PER_CHANNEL == 0 and payload["others"]:
            return _next_channel(row, payload, reason, at, contact)
        history = _history(row, contact, f"not now: {reason}"[:200])
        wait = timedelta(seconds=backoff(attempts))
        return {"attempts": attempts, "history": history, "next_at": at + wait}
    except Exception as exc:  # a plugin's own fault is this channel's, not the loop's
        if not isinstance(exc, PermanentTransportError):
            log.exception("notifier failed", channel=contact["channel"])
        reason = str(exc) if isinstance(exc, RsoError) else type(exc).__name__
        return _next_channel(row, payload, reason, at, contact)
    return {
        "state": "accepted",
        "attempts": row["attempts"] + 1,
        "ticket": ticket,
        "channel": contact["channel"],
        "history": _history(row, contact, f"accepted: {ticket}"[:200]),
        "next_at": at + timedelta(seconds=_FOLLOW_SECONDS),
        "done_at": None if notifier.follows else at,
    }


async def _hand_over(engine: Engine, notifier: Notifier, row: Row, contact: Row) -> str:
    exam = await exam_by_id(engine.ledger, row["exam"]) if row["exam"] else None
    settings = engine.settings
    matter = msgspec.json.decode(row["payload"]).get("matter", "")
    message = write_message(
        settings,
        notice_of(settings, row["event"], exam, matter=matter),
        channel=contact["channel"],
        address=notifier.check_address(contact["address"]),
        key=str(row["id"]),
        patient=patient_line(exam) if exam and notifier.carries_patient_data else "",
        leave_link=f"{settings.base_url}/leave/{contact['leave_key']}",
    )
    async with asyncio.timeout(_SEND_SECONDS):
        return printable(str(await notifier.send(message)))[:200]


async def _follow(
    engine: Engine, notifiers: Mapping[str, Notifier], row: Row, at: datetime
) -> dict[str, Any]:
    payload = msgspec.json.decode(row["payload"])
    contact = await _contact(engine, payload["contact"])
    notifier = notifiers.get(row["channel"])
    if notifier is None or not notifier.follows or contact is None:
        return {"done_at": at}
    noted = {}
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            found = await notifier.follow(row["ticket"])
    except PermanentTransportError as exc:
        return _next_channel(row, payload, str(exc), at, contact)
    except (TransientTransportError, TimeoutError):
        found = ""
    except Exception as exc:  # a plugin's own fault: nothing is known yet
        found, noted = "", _note_fault(row, contact, exc)
    if found == "delivered":
        return _end(row, "delivered", _history(row, contact, "delivered"), at)
    if found == "failed":
        return _next_channel(row, payload, "the provider gave up", at, contact)
    if at - row["created_at"] > timedelta(hours=_FOLLOW_HOURS):
        return {**noted, "done_at": at}
    return {**noted, "next_at": at + timedelta(seconds=_FOLLOW_SECONDS)}


def _note_fault(row: Row, contact: Row, exc: Exception) -> dict[str, Any]:
    """Say once, in the log and the history, that a message cannot be followed."""
    reason = str(exc) if isinstance(exc, RsoError) else type(exc).__name__
    told = f"cannot be followed: {reason}"[:200]
    if any(line["result"] == told for line in msgspec.json.decode(row["history"]) or []):
        return {}
    log.error("message cannot be followed", channel=row["channel"], exc_info=exc)
    return {"history": _history(row, contact, told)}


def _history(row: Row, contact: Row | None, result: str) -> str:
    history = msgspec.json.decode(row["history"]) or []
    channel, address = (contact["channel"], contact["address"]) if contact else ("", "")
    return msgspec.json.encode([*history, said(channel, address, result)][-40:]).decode()


def _end(row: Row, state: str, history: str, at: datetime) -> dict[str, Any]:
    return {"state": state, "history": history, "done_at": at, "attempts": row["attempts"] + 1}


def _next_channel(
    row: Row, payload: dict[str, Any], reason: str, at: datetime, contact: Row | None
) -> dict[str, Any]:
    history = _history(row, contact, f"not there: {reason}"[:200])
    if not payload["others"]:
        return _end(row, "failed", history, at)
    following = {**payload, "contact": payload["others"][0], "others": payload["others"][1:]}
    return {
        "state": "queued",
        "attempts": 0,
        "payload": msgspec.json.encode(following).decode(),
        "history": history,
        "next_at": at,
    }
