"""Figures for the dashboard and for monitoring; each is one query, bounded and by an index."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from rso.ledger.ledger import Ledger

__all__ = [
    "add_received",
    "count_overdue",
    "delivered_since",
    "destination_queues",
    "outbox_states",
    "per_hour",
    "received_totals",
    "sources_of",
]

_MOST_DELIVERED = 5000


def _of(facilities: Sequence[str] | None, column: str = "facility") -> tuple[str, list[Any]]:
    if facilities is None:
        return "", []
    return f" AND {column} IN ({','.join('?' * len(facilities)) or 'NULL'})", list(facilities)


async def add_received(ledger: Ledger, channel: str, instances: int, size: int) -> None:
    """Count what came in by a channel; ``size`` in bytes."""
    await ledger.execute(
        "INSERT INTO channel_total (channel, instances, bytes) VALUES (?, ?, ?)"
        " ON CONFLICT (channel) DO UPDATE SET"
        " instances = channel_total.instances + excluded.instances,"
        " bytes = channel_total.bytes + excluded.bytes",
        channel,
        instances,
        size,
    )


async def received_totals(ledger: Ledger) -> list[dict[str, Any]]:
    """Instances and bytes that came in since the beginning, by channel."""
    return await ledger.fetch("SELECT * FROM channel_total ORDER BY channel")


async def per_hour(
    ledger: Ledger, facilities: Sequence[str] | None, *, until: datetime, hours: int
) -> list[dict[str, Any]]:
    """Images received, and exams delivered, in each of the last hours, the oldest first."""
    where, values = _of(facilities)
    begin = until.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
    starts = [begin + timedelta(hours=i) for i in range(hours)]

    async def count(table: str, column: str) -> dict[int, int]:
        part = (
            f"SELECT {{i}} AS i, count(*) AS n FROM {table}"  # noqa: S608
            f" WHERE {column} >= ? AND {column} < ?{where}"
        )
        rows = await ledger.fetch(
            " UNION ALL ".join(part.format(i=i) for i in range(hours)),
            *[v for at in starts for v in (at, at + timedelta(hours=1), *values)],
        )
        return {row["i"]: row["n"] for row in rows}

    received = await count("instance", "received_at")
    delivered = await count("exam", "delivered_at")
    return [
        {"at": at, "received": received[i], "delivered": delivered[i]}
        for i, at in enumerate(starts)
    ]


async def delivered_since(
    ledger: Ledger, facilities: Sequence[str] | None, since: datetime
) -> list[dict[str, Any]]:
    """Exams delivered lately, the newest first: what their turnaround is made of."""
    where, values = _of(facilities)
    return await ledger.fetch(
        "SELECT facility, priority, created_at, delivered_at FROM exam WHERE delivered_at >= ?"  # noqa: S608
        f"{where} ORDER BY delivered_at DESC LIMIT ?",
        since,
        *values,
        _MOST_DELIVERED,
    )


async def count_overdue(ledger: Ledger, facilities: Sequence[str] | None, at: datetime) -> int:
    """Open exams that are past their target."""
    where, values = _of(facilities)
    rows = await ledger.fetch(
        "SELECT count(*) AS n FROM exam WHERE status IN ('requested', 'receiving', 'settled')"  # noqa: S608
        f" AND priority IN (0, 1, 2) AND due_at < ?{where}",
        at,
        *values,
    )
    return int(rows[0]["n"])


async def sources_of(ledger: Ledger, facilities: Sequence[str] | None) -> list[dict[str, Any]]:
    """Every source and when its last image came, the longest silent first."""
    where, values = _of(facilities)
    return await ledger.fetch(
        "SELECT facility, channel, identity, kind, last_instance_at FROM source WHERE 1 = 1"  # noqa: S608
        f"{where} ORDER BY facility, last_instance_at, channel, identity",
        *values,
    )


async def destination_queues(
    ledger: Ledger, facilities: Sequence[str] | None
) -> list[dict[str, Any]]:
    """What of these facilities waits for, and stopped at, each destination that reads for them."""
    where, values = _of(facilities, "a.facility")
    own, more = _of(facilities, "e.facility")
    reads = f"SELECT a.radiologist FROM attachment a WHERE 1 = 1{where}"  # noqa: S608
    mine = "" if facilities is None else f" WHERE d.radiologist IN ({reads})"
    if own:
        own = (
            " AND EXISTS (SELECT 1 FROM delivery v JOIN exam e ON e.id = v.exam"  # noqa: S608
            f" WHERE v.id = i.delivery{own})"
        )
    count = "(SELECT count(*) FROM delivery_item i WHERE i.destination = d.code AND i.state ="
    return await ledger.fetch(
        "SELECT d.code, d.paused, d.failures, d.open_until, d.last_success_at,"  # noqa: S608
        f" {count} 'pending'{own}) AS pending, {count} 'stopped'{own}) AS stopped"
        f" FROM destination d{mine} ORDER BY d.code",
        *more,
        *more,
        *values,
    )


async def outbox_states(ledger: Ledger, since: datetime) -> list[dict[str, Any]]:
    """Hooks and messages that were written down since then, by kind and state."""
    return await ledger.fetch(
        "SELECT kind, state, count(*) AS n FROM outbox WHERE created_at >= ?"
        " GROUP BY kind, state ORDER BY kind, state",
        since,
    )
