"""Escalation: those on call are told one after another, until somebody sees to it."""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from rso.core.notifying import is_awake
from rso.core.on_call import next_on_call
from rso.engine.context import Engine
from rso.engine.matters import KIND, Duty, duty_of, line, seen_to_by
from rso.engine.notify import write_notification
from rso.engine.outbox import emit
from rso.ledger import audit
from rso.ledger.contacts import usable_contacts
from rso.ledger.exams import exam_by_id, now
from rso.ledger.outbox import claim_outbox

__all__ = ["escalate_due", "run_escalation", "tell_overdue"]

log = structlog.get_logger(__name__)

_TURN_SECONDS = 1.0
_LEASE_SECONDS = 60
_AT_ONCE = 20
Row = dict[str, Any]


async def run_escalation(engine: Engine, owner: str, stop: asyncio.Event) -> None:
    """Tell of what is overdue and of what nobody has seen to, until ``stop`` is set."""
    while not stop.is_set():
        await tell_overdue(engine)
        if not await escalate_due(engine, owner):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _TURN_SECONDS)


async def tell_overdue(engine: Engine, *, at: datetime | None = None) -> int:
    """Emit ``exam_overdue``, once for each exam that has passed its target; returns how many.

    What passed it longer ago than a message is good for is not told any more: after an upgrade
    or an outage nobody hears of last month.
    """
    at = at or now()
    ledger = engine.ledger
    rows = await ledger.fetch(
        "SELECT e.id FROM exam e WHERE e.status IN ('requested', 'receiving', 'settled')"
        " AND e.due_at <= ? AND e.due_at > ? AND NOT EXISTS (SELECT 1 FROM outbox o"
        " WHERE o.exam = e.id AND o.kind = 'hook' AND o.event = 'exam_overdue') LIMIT 200",
        at,
        at - timedelta(hours=engine.settings.notify.expire_hours),
    )
    for row in rows:
        async with ledger.transaction():
            await emit(ledger, "exam_overdue", exam=row["id"], dedupe=f"exam_overdue:{row['id']}")
    return len(rows)


async def escalate_due(engine: Engine, owner: str, *, at: datetime | None = None) -> int:
    """Take every matter that is due one step further; returns how many there were."""
    at = at or now()
    rows = await claim_outbox(
        engine.ledger, owner, at, kind=KIND, states=("queued",), limit=_AT_ONCE,
        seconds=_LEASE_SECONDS,
    )  # fmt: skip
    for row in rows:
        payload, history = msgspec.json.decode(row["payload"]), msgspec.json.decode(row["history"])
        await _step(engine, owner, {**row, "payload": payload, "history": history}, at)
    return len(rows)


async def _step(engine: Engine, owner: str, matter: Row, at: datetime) -> None:
    ledger, payload, history = engine.ledger, matter["payload"], list(matter["history"])
    who = await seen_to_by(ledger, matter)
    duty = await duty_of(ledger, matter["facility"])
    wait = timedelta(minutes=duty.escalate_minutes)
    change: dict[str, Any] = {"next_at": at + wait}
    async with ledger.transaction():
        if who is not None:
            history.append(line(who, "seen to"))
            change |= {"state": "done", "recipient": who, "done_at": at}
        else:
            person = await _tell_next(engine, matter, duty, at)
            old = at - matter["created_at"] > timedelta(hours=engine.settings.notify.expire_hours)
            if person:
                payload = {**payload, "told": [*payload["told"], person]}
                history.append(line(person, "told"))
            elif payload["told"] or old:
                history.append(line("", "nobody answered"))
                change |= {"state": "failed", "done_at": at}
                await _note_unanswered(engine, matter)
        change |= {
            "payload": msgspec.json.encode(payload).decode(),
            "history": msgspec.json.encode(history).decode(),
        }
        columns = ", ".join(f"{name} = ?" for name in change)
        await ledger.execute(
            f"UPDATE outbox SET {columns}, lease_owner = '', lease_until = NULL"  # noqa: S608
            " WHERE id = ? AND lease_owner = ? AND state = 'queued'",
            *change.values(),
            matter["id"],
            owner,
        )


async def _tell_next(engine: Engine, matter: Row, duty: Duty, at: datetime) -> str:
    """Write a message to the next one on call who can be reached now; returns who it is."""
    exam = await exam_by_id(engine.ledger, matter["exam"]) if matter["exam"] else None
    for person in next_on_call(duty.on_call, at, matter["payload"]["told"]):
        contacts = [
            contact
            for contact in await usable_contacts(engine.ledger, "user", person)
            if contact["channel"] in engine.plugins.notifiers
            and is_awake(contact["quiet"], contact["timezone"], contact["breaks_quiet"], at)
        ]
        if contacts:
            about = matter["dedupe"].removeprefix(KIND)
            await write_notification(
                engine.ledger, matter["event"], exam, contacts, facility=matter["facility"],
                dedupe=f"notify{about}:user:{person}", matter=str(matter["id"]), on_call=True,
                at=at,
            )  # fmt: skip
            return person
    return ""


async def _note_unanswered(engine: Engine, matter: Row) -> None:
    exam = await exam_by_id(engine.ledger, matter["exam"]) if matter["exam"] else None
    log.warning("nobody answered", event_name=matter["event"], facility=matter["facility"])
    await audit.append(
        engine.ledger, actor="rso", action="nobody answered", facility=matter["facility"],
        exam=exam.number if exam else "",
        facts={"event": matter["event"], "told": str(len(matter["payload"]["told"]))},
    )  # fmt: skip
