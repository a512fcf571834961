"""Telling people that images were sent under a wrong match, and saying who really hears of it."""

from datetime import datetime

import msgspec
from msgspec import Struct

from rso.core.exam import Exam
from rso.core.notifying import breaks_quiet, parse_quiet
from rso.engine.context import Engine
from rso.engine.matters import KIND
from rso.engine.notify import notify_event, readers_of
from rso.engine.outbox import emit
from rso.ledger import Ledger
from rso.ledger.exams import exam_by_id, now
from rso.ledger.holds import HoldRow

__all__ = ["EVENT", "Heard", "Hearer", "tell_recall", "told_of_recall"]

EVENT = "release_recalled"


class Hearer(Struct, frozen=True, kw_only=True):
    """Somebody with a message of it.

    Attributes:
        name: A user's email, or a radiologist's code.
        until: When their quiet hours end, before which it is not sent.
    """

    name: str
    channel: str
    until: datetime | None = None


class Heard(Struct, frozen=True, kw_only=True):
    """Who hears of a recall.

    Attributes:
        now: Those whose message was sent or is on its way.
        later: Those whose quiet hours it waits for.
        missed: Radiologists who do not hear of it now: call them.
        on_call: Those on call are told in turn.
    """

    now: tuple[Hearer, ...] = ()
    later: tuple[Hearer, ...] = ()
    missed: tuple[str, ...] = ()
    on_call: bool = False


async def tell_recall(
    engine: Engine, exam: Exam, hold_id: str, sent: int, *, code: str = ""
) -> None:
    """Write the messages down with the recall, once for a hold; call inside its transaction.

    ``code`` says what else than a recall it was: the hold may be released and recalled yet.
    """
    facts = {"hold": hold_id, "sent": sent, "code": code}
    dedupe = f"{EVENT}:{hold_id}:{code}"
    await emit(engine.ledger, EVENT, exam=exam.id, dedupe=dedupe, facts=facts)
    # At once and not by the outbox: who takes a release back is told who hears of it.
    await notify_event(engine, EVENT, exam, facts)


async def told_of_recall(
    ledger: Ledger, hold: HoldRow, *, at: datetime | None = None
) -> Heard | None:
    """Who hears that this hold's release was taken back; ``None`` when nothing had been sent.

    A message that failed tells nobody.
    """
    at = at or now()
    exam = await exam_by_id(ledger, hold.exam) if hold.exam else None
    if exam is None:
        return None
    rows = await ledger.fetch(
        "SELECT kind, recipient, channel, state, payload, dedupe FROM outbox WHERE exam = ?"
        " AND event = ? AND dedupe LIKE ? ORDER BY created_at, id",
        exam.id,
        EVENT,
        f"%:{hold.id}%",
    )
    if not rows:
        return None
    on_call, reached = False, set[str]()
    soon, later = list[Hearer](), list[Hearer]()
    for row in rows:
        if row["kind"] == KIND:
            on_call = row["state"] == "queued"
        elif row["kind"] == "notify" and row["state"] not in {"failed", "cancelled"}:
            until = await _waits(ledger, row["payload"], at) if row["state"] == "queued" else None
            hearer = Hearer(name=row["recipient"], channel=row["channel"], until=until)
            (later if until else soon).append(hearer)
            if until is None and ":radiologist:" in row["dedupe"]:
                reached.add(row["recipient"])
    missed = tuple(sorted(set(await readers_of(ledger, exam)) - reached))
    return Heard(now=tuple(soon), later=tuple(later), missed=missed, on_call=on_call)


async def _waits(ledger: Ledger, payload: str, at: datetime) -> datetime | None:
    """Until when a message waits for quiet hours to end."""
    said = msgspec.json.decode(payload)
    rows = await ledger.fetch("SELECT * FROM contact WHERE id = ?", said["contact"])
    quiet = parse_quiet(rows[0]["quiet"], rows[0]["timezone"]) if rows else None
    if quiet is None or breaks_quiet(
        EVENT, said["priority"], rows[0]["breaks_quiet"], on_call=bool(said.get("on_call"))
    ):
        return None
    return quiet.until(at)
