"""Single instances that a person rejected: they stay kept, and are not sent.

Each has a hold of its own that says so; what comes again after that was rejected is asked about
again.
"""

from collections.abc import Sequence
from datetime import datetime

from rso.ledger import tables
from rso.ledger.ledger import Ledger, new_id

__all__ = [
    "LATE",
    "REJECTED",
    "lock_holds_of",
    "mark_others",
    "mark_rejected",
    "rejected_in",
]

LATE = "late"
REJECTED = (
    "EXISTS (SELECT 1 FROM hold h WHERE h.instance = {0}.id AND h.state = 'rejected'"
    " AND h.resolved_at >= {0}.received_at)"
)
"""Holds of a row of ``instance``, whose alias is to be filled in."""


async def rejected_in(ledger: Ledger, exam: str) -> int:
    """How many of the exam's instances a person rejected: they are not counted as its own."""
    rows = await ledger.fetch(
        "SELECT count(DISTINCT i.id) AS n FROM study s JOIN hold h ON h.study = s.id"
        " JOIN instance i ON i.id = h.instance WHERE s.exam = ? AND NOT i.conflict"
        " AND s.state IN ('matched', 'stopped') AND h.state = 'rejected'"
        " AND h.resolved_at >= i.received_at",
        exam,
    )
    return int(rows[0]["n"])


async def mark_rejected(
    ledger: Ledger,
    instances: Sequence[str],
    *,
    reason: str,
    actor: str,
    resolution: str,
    at: datetime,
) -> None:
    """Write of each of these that it was rejected, where its Study does not say so."""
    if not instances:
        return
    rows = await ledger.fetch(
        "SELECT id, study, facility FROM instance"  # noqa: S608
        f" WHERE id IN ({','.join('?' * len(instances))}) ORDER BY id",
        *instances,
    )
    await ledger.insert_rows(
        tables.Hold,
        [
            {
                "id": new_id(),
                "kind": "instance",
                "facility": row["facility"],
                "study": row["study"],
                "instance": row["id"],
                "table_row": 0,
                "reason": reason,
                "alarm": False,
                "state": "rejected",
                "exam": None,
                "evidence": "{}",
                "first_person": "",
                "resolved_by": actor,
                "resolution": resolution,
                "opened_at": at,
                "resolved_at": at,
            }
            for row in rows
        ],
    )


async def mark_others(
    ledger: Ledger, study: str, but: Sequence[str], *, actor: str, at: datetime
) -> None:
    """Write it of the instances of a rejected Study, before others (``but``) of it are matched.

    So these alone are asked about, and sent. Other content that came with them is none of it.
    """
    rows = await ledger.fetch(
        "SELECT i.id FROM instance i WHERE i.study = ? AND (NOT i.conflict OR i.received_at <="  # noqa: S608
        " (SELECT max(r.resolved_at) FROM hold r WHERE r.study = i.study AND r.kind = 'study'"
        f" AND r.state = 'rejected')) AND NOT {REJECTED.format('i')} ORDER BY i.id",
        study,
    )
    await mark_rejected(
        ledger, [row["id"] for row in rows if row["id"] not in set(but)],
        reason="rejected with its Study", actor=actor, at=at,
        resolution="its Study was rejected, and others of it came again",
    )  # fmt: skip


async def lock_holds_of(ledger: Ledger, instances: Sequence[str]) -> None:
    """Let nobody decide on the holds of these instances until the transaction ends."""
    if instances and ledger.for_update:
        marks = ",".join("?" * len(instances))
        await ledger.fetch(
            f"SELECT id FROM hold WHERE instance IN ({marks}) ORDER BY id{ledger.for_update}",  # noqa: S608
            *instances,
        )
