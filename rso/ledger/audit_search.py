"""Reading the audit: entries by exam, person, action and time, found through an index each."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rso.ledger.ledger import Ledger

__all__ = ["Wanted", "audit_actions", "audit_chunks", "audit_entries", "first_since"]

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)
_CHUNK = 1000
# Entries follow one another in time, unless the clock was put back: by no more than this.
_CLOCK = timedelta(hours=1)


class Wanted(Struct, frozen=True, kw_only=True):
    """Which entries; what is empty is not asked for.

    Attributes:
        since: Not before this moment.
        until: Before this moment.
        before: Only entries with a lower number, for the page that follows.
    """

    exam: str = ""
    actor: str = ""
    action: str = ""
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None


async def audit_entries(
    ledger: Ledger, facilities: Sequence[str] | None, wanted: Wanted, *, limit: int = 100
) -> list[dict[str, Any]]:
    """Audit entries, the newest first; of one's facilities where one is bound to some."""
    where, values = await _conditions(ledger, wanted)
    if facilities is None:
        return await _newest(ledger, where, values, limit)
    if facilities and (wanted.exam or wanted.actor):  # few, whosever they are
        marks = ",".join("?" * len(facilities))
        within = [*where, f"facility IN ({marks})"]
        return await _newest(ledger, within, [*values, *facilities], limit)
    found = list[dict[str, Any]]()
    for facility in facilities:  # each by the end of its own part of the index
        found += await _newest(ledger, [*where, "facility = ?"], [*values, facility], limit)
    return sorted(found, key=lambda row: -row["id"])[:limit]


async def _newest(
    ledger: Ledger, where: Sequence[str], values: Sequence[Any], limit: int
) -> list[dict[str, Any]]:
    condition = " AND ".join(where)
    return await ledger.fetch(
        f"SELECT * FROM audit WHERE {condition} ORDER BY id DESC LIMIT ?",  # noqa: S608
        *values,
        limit,
    )


async def _conditions(ledger: Ledger, wanted: Wanted) -> tuple[list[str], list[Any]]:
    """A time is a range of numbers too, which goes with the index of anything else."""
    where, values = ["1 = 1"], list[Any]()
    for column in ("exam", "actor", "action"):
        if value := getattr(wanted, column):
            where, values = [*where, f"{column} = ?"], [*values, value]
    if wanted.before is not None:
        where, values = [*where, "id < ?"], [*values, wanted.before]
    if wanted.since is not None:
        since = min(max(wanted.since, _EARLIEST), _LATEST)
        number = await first_since(ledger, since - _CLOCK)
        where, values = [*where, "at >= ?", "id >= ?"], [*values, since, number]
    if wanted.until is not None:
        until = min(max(wanted.until, _EARLIEST), _LATEST)
        rows = await ledger.fetch(
            "SELECT id FROM audit WHERE at < ? ORDER BY at DESC, id DESC LIMIT 1", until + _CLOCK
        )
        number = rows[0]["id"] if rows else 0
        where, values = [*where, "at < ?", "id <= ?"], [*values, until, number]
    return where, values


async def first_since(ledger: Ledger, at: datetime) -> int:
    """The number of the first entry that is not older; one that there is not when none is."""
    rows = await ledger.fetch("SELECT id FROM audit WHERE at >= ? ORDER BY at, id LIMIT 1", at)
    return int(rows[0]["id"]) if rows else 2**62


async def audit_chunks(
    ledger: Ledger, facilities: Sequence[str] | None, wanted: Wanted
) -> AsyncIterator[list[dict[str, Any]]]:
    """All of them, the newest first, a thousand at a time."""
    while rows := await audit_entries(ledger, facilities, wanted, limit=_CHUNK):
        yield rows
        wanted = replace(wanted, before=rows[-1]["id"])


async def audit_actions(ledger: Ledger) -> list[str]:
    """Every kind of action there is, from one to the next by the index."""
    rows = await ledger.fetch(
        "SELECT action FROM (WITH RECURSIVE found(action) AS ("
        "SELECT min(action) FROM audit UNION ALL SELECT"
        " (SELECT min(a.action) FROM audit a WHERE a.action > found.action)"
        " FROM found WHERE found.action IS NOT NULL"
        ") SELECT action FROM found) AS kinds WHERE action IS NOT NULL ORDER BY action"
    )
    return [row["action"] for row in rows]
