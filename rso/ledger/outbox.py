"""The outbox: what must happen after a commit, written down within it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from rso.ledger import tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id

__all__ = ["add_to_outbox"]


async def add_to_outbox(
    ledger: Ledger,
    kind: str,
    event: str,
    *,
    exam: str | None,
    payload: Mapping[str, Any],
    dedupe: str = "",
    recipient: str = "",
    channel: str = "",
) -> int:
    """Add a row that is due at once; returns 0 when one with the same ``dedupe`` is there."""
    at, row_id = now(), new_id()
    row = {
        "id": row_id,
        "kind": kind,
        "event": event,
        "dedupe": dedupe or row_id,
        "exam": exam,
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
