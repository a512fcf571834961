"""Attempts of delivery that ended without an acknowledgement, before a resend, or too late.

An item holds its present state; what it forgets is kept here, the same ending of the same instance
in one row with a count: a destination that refuses for days fills no disk.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rso.ledger.aggregates import with_times
from rso.ledger.ledger import Ledger, new_id

__all__ = ["Attempt", "attempts_of_exam", "attempts_of_instances", "keep_attempts"]

Attempt = tuple[str, str, str, str, str, datetime]
"""Delivery, subject (instance, or the delivery itself), state, code, reason, time."""


async def keep_attempts(ledger: Ledger, attempts: Sequence[Attempt]) -> None:
    """Write attempts down, counting those that ended alike."""
    await ledger.execute_many(
        "INSERT INTO delivery_attempt (id, delivery, subject, state, code, reason, times,"
        " first_at, last_at) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)"
        " ON CONFLICT (delivery, subject, state, code, reason) DO UPDATE"
        " SET times = delivery_attempt.times + 1, last_at = excluded.last_at",
        [
            (new_id(), delivery, subject, state, code[:16], reason[:200], at, at)
            for delivery, subject, state, code, reason, at in attempts
        ],
    )


_GROUPED = (
    "FROM delivery_attempt a JOIN delivery v ON v.id = a.delivery WHERE v.exam = ?"
    " GROUP BY v.destination, a.state, a.code, a.reason"
)


async def attempts_of_exam(
    ledger: Ledger, exam: str, most: int
) -> tuple[list[dict[str, Any]], int]:
    """An exam's attempts that did not end well, by destination and cause, the last first.

    With how many older rows there are besides the ``most``. ``instances`` is 0 where the
    destination could not be reached at all.
    """
    rows = await ledger.fetch(
        "SELECT v.destination, a.state, a.code, a.reason, sum(a.times) AS times,"
        " sum(CASE WHEN a.subject = a.delivery THEN 0 ELSE 1 END) AS instances,"
        f" min(a.first_at) AS first_at, max(a.last_at) AS last_at {_GROUPED}"
        " ORDER BY max(a.last_at) DESC LIMIT ?",
        exam,
        most,
    )
    found = with_times(rows, "first_at", "last_at")
    if len(found) < most:
        return found, 0
    (whole,) = await ledger.fetch(
        f"SELECT count(*) AS n FROM (SELECT v.destination {_GROUPED}) AS causes",  # noqa: S608
        exam,
    )
    return found, whole["n"] - len(found)


async def attempts_of_instances(
    ledger: Ledger, exam: str, instances: Sequence[str]
) -> list[dict[str, Any]]:
    """Every kept attempt to send these instances of an exam, the first first."""
    if not instances:
        return []
    return await ledger.fetch(
        "SELECT a.subject AS instance, v.destination, a.state, a.code, a.reason, a.times,"  # noqa: S608
        " a.first_at, a.last_at FROM delivery_attempt a JOIN delivery v ON v.id = a.delivery"
        f" WHERE v.exam = ? AND a.subject IN ({','.join('?' * len(instances))})"
        " ORDER BY a.first_at, a.id",
        exam,
        *instances,
    )
