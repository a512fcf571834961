"""Where an exam is on its way already: later images of it go there too."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from rso.ledger.deliveries import IN_QUESTION
from rso.ledger.ledger import Ledger
from rso.ledger.rejected import LATE, REJECTED

__all__ = [
    "STOPPED_BY",
    "Standing",
    "is_refused",
    "is_unsent",
    "never_queued",
    "never_sent",
    "standing_deliveries",
]

STOPPED_BY = "stopped by "
"""How the reason begins when a person stopped a delivery."""


class Standing(Struct, frozen=True, kw_only=True):
    """A delivery that still has something of the exam, to who still reads for its facility.

    Attributes:
        stopped: The reason, where a person stopped it and nobody let it go on.
    """

    delivery: str
    destination: str
    stopped: str = ""


async def standing_deliveries(ledger: Ledger, exam: str) -> list[Standing]:
    """An exam's deliveries but those that all was recalled of, and those whose reader left."""
    rows = await ledger.fetch(
        "SELECT v.id, v.destination, v.state FROM delivery v JOIN exam e ON e.id = v.exam"
        " WHERE v.exam = ? AND v.total > 0 AND EXISTS (SELECT 1 FROM destination d"
        " JOIN attachment a ON a.radiologist = d.radiologist"
        " WHERE d.code = v.destination AND a.facility = e.facility) ORDER BY v.destination",
        exam,
    )
    return [
        Standing(
            delivery=row["id"],
            destination=row["destination"],
            stopped=await _stopped(ledger, row) if row["state"] == "stopped" else "",
        )
        for row in rows
    ]


async def _stopped(ledger: Ledger, delivery: dict[str, Any]) -> str:
    """A person's reason; empty where the destination refused, or an identity is in question."""
    rows = await ledger.fetch(
        "SELECT reason FROM delivery_item WHERE delivery = ? AND state = 'stopped' AND code = ''"
        " AND reason LIKE ? LIMIT 1",
        delivery["id"],
        f"{STOPPED_BY}%",
    )
    return str(rows[0]["reason"]) if rows else ""


async def is_refused(ledger: Ledger, exam: str) -> bool:
    """Whether something of an exam stopped on its way, and neither a person nor a question did it.

    The items are asked: a delivery is on its way for as long as one image of it is.
    """
    rows = await ledger.fetch(
        "SELECT d.id FROM delivery_item d JOIN delivery v ON v.id = d.delivery"
        " WHERE v.exam = ? AND d.state = 'stopped'"
        " AND (d.code <> '' OR (d.reason <> ? AND d.reason NOT LIKE ?)) LIMIT 1",
        exam,
        IN_QUESTION,
        f"{STOPPED_BY}%",
    )
    return bool(rows)


async def never_queued(
    ledger: Ledger, delivery: str, *, study: str = "", exam: str = ""
) -> list[str]:
    """What a delivery has nothing of yet: of one Study, or of all that the exam may send.

    Not what a person rejected, and of a Study about whose late images a person is asked only what
    is on its way, or went, to somebody.
    """
    where, value = ("s.id = ?", study) if study else ("s.exam = ? AND s.state = 'matched'", exam)
    rows = await ledger.fetch(
        "SELECT i.id FROM study s JOIN instance i ON i.study = s.id"  # noqa: S608
        " LEFT JOIN delivery_item d ON d.instance = i.id AND d.delivery = ?"
        f" WHERE {where} AND NOT i.conflict AND i.purged_at IS NULL AND d.id IS NULL"
        f" AND NOT {REJECTED.format('i')} AND NOT EXISTS (SELECT 1 FROM hold h"
        " WHERE h.study = s.id AND h.state = 'open' AND h.kind = 'study' AND h.reason = ?"
        " AND NOT EXISTS (SELECT 1 FROM delivery_item o WHERE o.instance = i.id)) ORDER BY i.id",
        delivery,
        value,
        LATE,
    )
    return [row["id"] for row in rows]


async def never_sent(ledger: Ledger, study: str, *, since: datetime | None = None) -> list[str]:
    """What of a Study (and came ``since`` then) is on its way to nobody, and was not rejected.

    What was taken out of an exam is on its way no more.
    """
    later = "AND i.received_at >= ?" if since else ""
    rows = await ledger.fetch(
        "SELECT i.id FROM instance i LEFT JOIN delivery_item d ON d.instance = i.id"  # noqa: S608
        " AND d.state <> 'cancelled'"
        " WHERE i.study = ? AND NOT i.conflict AND i.purged_at IS NULL AND d.id IS NULL"
        f" AND NOT {REJECTED.format('i')} {later} ORDER BY i.id",
        *([study, since] if since else [study]),
    )
    return [row["id"] for row in rows]


async def is_unsent(ledger: Ledger, exam: str, study: str) -> bool:
    """Whether something of a Study is on its way to nobody, or lacks on one of the exam's ways."""
    if await never_sent(ledger, study):
        return True
    for way in await standing_deliveries(ledger, exam):
        if await never_queued(ledger, way.delivery, study=study):
            return True
    return False
