"""Destinations with what waits, fails and goes, of the exams that a caller may see."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rso.ledger.exams import now
from rso.ledger.ledger import Ledger

__all__ = ["RATE_MINUTES", "destination_rows", "failures", "rates", "stopped_deliveries", "waiting"]

RATE_MINUTES = 5


def _within(facilities: Sequence[str] | None) -> tuple[str, list[Any]]:
    """Limits items (``d``) to exams of these facilities."""
    if facilities is None:
        return "", []
    marks = ",".join("?" * len(facilities)) or "NULL"
    return (
        " AND EXISTS (SELECT 1 FROM delivery w JOIN exam e ON e.id = w.exam"  # noqa: S608
        f" WHERE w.id = d.delivery AND e.facility IN ({marks}))",
        list(facilities),
    )


async def destination_rows(
    ledger: Ledger, facilities: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Destinations of those who read for these facilities; ``shared``: for others too."""
    marks = ",".join("?" * len(facilities or [])) or "NULL"
    reads = "EXISTS (SELECT 1 FROM attachment a WHERE a.radiologist = d.radiologist"
    mine = "" if facilities is None else f" WHERE {reads} AND a.facility IN ({marks}))"
    others = "" if facilities is None else f" AND a.facility NOT IN ({marks})"
    values = [] if facilities is None else [*facilities, *facilities]
    return await ledger.fetch(
        f"SELECT d.*, {reads}{others}) AS shared FROM destination d{mine} ORDER BY d.code",  # noqa: S608
        *values,
    )


async def waiting(ledger: Ledger, code: str, facilities: Sequence[str] | None) -> int:
    """How many instances are queued for a destination."""
    within, values = _within(facilities)
    rows = await ledger.fetch(
        "SELECT count(*) AS n FROM delivery_item d WHERE d.destination = ?"  # noqa: S608
        f" AND d.state = 'pending'{within}",
        code,
        *values,
    )
    return int(rows[0]["n"])


async def failures(
    ledger: Ledger, code: str, facilities: Sequence[str] | None
) -> list[dict[str, Any]]:
    """What a destination refused or could not take, by answer: the most frequent first."""
    within, values = _within(facilities)
    found = []
    for state, more in (("stopped", ""), ("pending", " AND d.attempts > 0")):
        found += await ledger.fetch(
            "SELECT d.state, d.code, d.reason, count(*) AS instances,"  # noqa: S608
            " count(DISTINCT d.delivery) AS exams FROM delivery_item d"
            f" WHERE d.destination = ? AND d.state = '{state}'{more}{within}"
            " GROUP BY d.state, d.code, d.reason ORDER BY instances DESC LIMIT 20",
            code,
            *values,
        )
    return found


async def rates(ledger: Ledger, facilities: Sequence[str] | None) -> dict[str, float]:
    """Instances a minute that each destination acknowledged in the last five minutes."""
    within, values = _within(facilities)
    since = now() - timedelta(minutes=RATE_MINUTES)
    rows = await ledger.fetch(
        "SELECT d.destination, count(*) AS n FROM delivery v"  # noqa: S608
        " JOIN delivery_item d ON d.delivery = v.id"
        f" WHERE v.updated_at > ? AND d.acknowledged_at > ?{within} GROUP BY d.destination",
        since,
        since,
        *values,
    )
    return {row["destination"]: round(row["n"] / RATE_MINUTES, 1) for row in rows}


async def stopped_deliveries(
    ledger: Ledger, code: str, facilities: Sequence[str] | None
) -> list[str]:
    """Deliveries to a destination of which something stopped."""
    within, values = _within(facilities)
    rows = await ledger.fetch(
        "SELECT DISTINCT d.delivery FROM delivery_item d"  # noqa: S608
        f" WHERE d.destination = ? AND d.state = 'stopped'{within} ORDER BY d.delivery",
        code,
        *values,
    )
    return [str(row["delivery"]) for row in rows]
