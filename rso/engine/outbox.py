"""The outbox: React hooks run after commit, at least once, each plugin on its own.

An event is written in the transaction of its cause. The loop calls every implementation in a
thread; one that raises is tried again later and silences nobody else.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import structlog

from rso.core.delivery import backoff
from rso.engine.context import Engine
from rso.engine.notify import notify_event
from rso.ledger import Ledger
from rso.ledger.exams import exam_by_id, now
from rso.ledger.outbox import add_to_outbox, claim_outbox, give_back_outbox

__all__ = ["emit", "run_outbox"]

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 60
_IDLE_SECONDS = 1.0


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
    while not stop.is_set():
        if not await deliver_events(engine, owner):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _IDLE_SECONDS)


async def deliver_events(engine: Engine, owner: str, *, limit: int = 50) -> int:
    """Deliver the events that are due; returns how many were tried."""
    rows = await claim_outbox(
        engine.ledger, owner, now(), kind="hook", states=("queued",), limit=limit,
        seconds=_LEASE_SECONDS,
    )  # fmt: skip
    for row in sorted(rows, key=lambda r: str(r["id"])):
        await _deliver(engine, owner, row)
    return len(rows)


async def _deliver(engine: Engine, owner: str, row: dict[str, Any]) -> None:
    history: dict[str, str] = msgspec.json.decode(row["history"]) or {}
    facts: dict[str, Any] = msgspec.json.decode(row["payload"])
    exam = await exam_by_id(engine.ledger, row["exam"]) if row["exam"] else None
    for name, call in engine.plugins.calls(f"rso_{row['event']}", exam=exam, **facts):
        if history.get(name) == "done":
            continue
        try:
            await asyncio.to_thread(call)
        except Exception as exc:  # a plugin's own fault, kept and tried again
            history[name] = f"{type(exc).__name__}: {exc}"[:200]
            log.warning("plugin failed in hook", plugin=name, hook_name=row["event"])
        else:
            history[name] = "done"
    if history.get("rso") != "done":
        await notify_event(engine, row["event"], exam, facts)
        history["rso"] = "done"
    done = all(result == "done" for result in history.values())
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
