"""The outbox: React hooks run after commit, at least once, each plugin on its own.

An event is written in the transaction of its cause. The loop writes RSO's own messages, then calls
every implementation in a thread; one that raises or hangs is tried again later and silences nobody
else.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from rso.core.delivery import backoff
from rso.core.exam import Exam
from rso.engine.context import Engine
from rso.engine.notify import notify_event
from rso.engine.reactions import DONE, Reactions
from rso.ledger import Ledger, LedgerUnavailable
from rso.ledger.exams import exam_by_id, now
from rso.ledger.outbox import add_to_outbox, claim_outbox, give_back_outbox

__all__ = ["emit", "run_outbox"]

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 120
_IDLE_SECONDS = 1.0
_OWN = "rso"  # in an event's history: its messages, beside the plugins


async def emit(
    ledger: Ledger,
    event: str,
    *,
    exam: str | None,
    dedupe: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Note that something happened; call inside the transaction that made it happen.

    Args:
        ledger: The ledger.
        event: A React hook without its prefix (``exam_created``).
        exam: Key of the exam.
        dedupe: Events with the same text happen once; empty: always anew.
        facts: Further arguments of the hook, without patient data.
    """
    await add_to_outbox(ledger, "hook", event, exam=exam, dedupe=dedupe, payload=facts or {})


async def run_outbox(engine: Engine, owner: str, stop: asyncio.Event) -> None:
    """Deliver events to the plugins until ``stop`` is set."""
    await give_back_outbox(engine.ledger, "hook", owner.rsplit("/", 1)[0] + "/")
    reactions = Reactions()
    while not stop.is_set():
        if not await deliver_events(engine, owner, reactions=reactions):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _IDLE_SECONDS)


async def deliver_events(
    engine: Engine, owner: str, *, limit: int = 50, reactions: Reactions | None = None
) -> int:
    """Deliver the events that are due; returns how many were tried.

    RSO's own messages of all of them are written first: no plugin holds up an alarm.
    """
    reactions = reactions or Reactions()
    rows = await claim_outbox(
        engine.ledger, owner, now(), kind="hook", states=("queued",), limit=limit,
        seconds=_LEASE_SECONDS,
    )  # fmt: skip
    rows.sort(key=lambda r: str(r["id"]))
    events = [await _tell(engine, row) for row in rows]
    for event in events:
        await _deliver(engine, owner, event, reactions)
    return len(rows)


class _Event(Struct, frozen=True, kw_only=True):
    """A row of the outbox, read; ``history`` is what became of it with each plugin."""

    row: dict[str, Any]
    exam: Exam | None
    facts: dict[str, Any]
    history: dict[str, str]


async def _tell(engine: Engine, row: dict[str, Any]) -> _Event:
    """Write the messages of an event; a fault in that is kept and tried again like a plugin's."""
    event = _Event(
        row=row,
        exam=await exam_by_id(engine.ledger, row["exam"]) if row["exam"] else None,
        facts=msgspec.json.decode(row["payload"]),
        history=msgspec.json.decode(row["history"]) or {},
    )
    if event.history.get(_OWN) != DONE:
        try:
            await notify_event(engine, row["event"], event.exam, event.facts)
        except LedgerUnavailable:
            raise
        except Exception as exc:  # else it would stand before all other events for ever
            event.history[_OWN] = type(exc).__name__
            log.exception("messages of an event cannot be written", event_name=row["event"])
        else:
            event.history[_OWN] = DONE
    return event


async def _deliver(engine: Engine, owner: str, event: _Event, reactions: Reactions) -> None:
    row, history, hook = event.row, event.history, f"rso_{event.row['event']}"
    calls = engine.plugins.calls(hook, exam=event.exam, **event.facts)
    for name, call in calls:
        if history.get(name) != DONE:
            history[name] = await reactions.call(str(row["id"]), hook, name, call)
    # One that is not installed any more is not waited for.
    done = all(history[name] == DONE for name in (_OWN, *(name for name, _ in calls)))
    attempts = row["attempts"] + 1
    await engine.ledger.execute(
        "UPDATE outbox SET state = ?, attempts = ?, history = ?, next_at = ?, done_at = ?,"
        " lease_owner = '', lease_until = NULL WHERE id = ? AND lease_owner = ?",
        "done" if done else "queued",
        attempts,
        msgspec.json.encode(history).decode(),
        now() + timedelta(seconds=0 if done else backoff(attempts)),
        now() if done else None,
        row["id"],
        owner,
    )
