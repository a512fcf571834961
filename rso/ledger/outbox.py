"""The outbox: what must happen after a commit, written down within it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from rso.ledger import tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id

__all__ = ["add_to_outbox", "claim_outbox", "give_back_outbox"]

_MOST_DEDUPE = 300


async def add_to_outbox(
    ledger: Ledger,
    kind: str,
    event: str,
    *,
    exam: str | None,
    payload: Mapping[str, Any],
    facility: str = "",
    dedupe: str = "",
    recipient: str = "",
    channel: str = "",
    at: datetime | None = None,
) -> int:
    """Add a row that is due now, or at ``at``; returns 0 when its ``dedupe`` is there already."""
    at, row_id = at or now(), new_id()
    row = {
        "id": row_id,
        "kind": kind,
        "event": event,
        "dedupe": _fitting(dedupe) or row_id,
        "exam": exam,
        "facility": facility,
        "recipient": recipient,
        "channel": channel,
        "ticket": "",
        "payload": msgspec.json.encode(payload).decode(),
        "state": "queued",
        "attempts": 0,
        "history": "[]",
        "next_at": at,
        "lease_owner": "",
        "lease_until": None,
        "created_at": at,
        "done_at": None,
    }
    return await ledger.insert_rows(tables.Outbox, [row], on_conflict="nothing")


def _fitting(dedupe: str) -> str:
    """Itself; a longer one than the column takes ends in its digest."""
    if len(dedupe) <= _MOST_DEDUPE:
        return dedupe
    digest = sha256(dedupe.encode()).hexdigest()
    return f"{dedupe[: _MOST_DEDUPE - len(digest)]}{digest}"


async def claim_outbox(
    ledger: Ledger,
    owner: str,
    at: datetime,
    *,
    kind: str,
    states: Sequence[str],
    limit: int,
    seconds: float,
    only: str = "1 = 1",
) -> list[dict[str, Any]]:
    """Lease rows that are due, those of STAT exams first.

    Args:
        ledger: The ledger.
        owner: Who works on them; whoever else finds them leased waits for the lease to end.
        at: Now.
        kind: Of the rows.
        states: Rows in one of these, and not ended.
        limit: Most rows.
        seconds: How long the lease lasts.
        only: A further condition in SQL, of the caller's own making.
    """
    skip = " FOR UPDATE SKIP LOCKED" if ledger.kind == "postgres" else ""
    marks = ",".join("?" * len(states))
    return await ledger.fetch(
        "UPDATE outbox SET lease_owner = ?, lease_until = ? WHERE id IN ("  # noqa: S608
        f"SELECT id FROM outbox WHERE kind = ? AND state IN ({marks}) AND done_at IS NULL"
        f" AND next_at <= ? AND (lease_until IS NULL OR lease_until < ?) AND {only}"
        " ORDER BY CASE WHEN (SELECT e.priority FROM exam e WHERE e.id = outbox.exam) = 0"
        f" THEN 0 ELSE 1 END, next_at, id LIMIT ?{skip}) RETURNING *",
        owner,
        at + timedelta(seconds=seconds),
        kind,
        *states,
        at,
        at,
        limit,
    )


async def give_back_outbox(ledger: Ledger, kind: str, owner: str) -> None:
    """End the leases of everyone whose name begins so: earlier lives of this process."""
    await ledger.execute(
        "UPDATE outbox SET lease_owner = '', lease_until = NULL"
        " WHERE kind = ? AND done_at IS NULL AND substr(lease_owner, 1, ?) = ?",
        kind,
        len(owner),
        owner,
    )
