"""Who was refused lately, and why: read from the audit, which has it from the receivers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from rso.ledger.audit_search import first_since
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger

__all__ = ["REFUSALS", "Refused", "recent_refusals"]

REFUSALS = (
    "association refused",
    "ftp sign-in refused",
    "http upload refused",
    "quota exceeded",
)
_NAMES = ("calling", "account", "source")
_MOST_READ = 5000


class Refused(Struct, frozen=True, kw_only=True):
    """One peer that was refused for one reason.

    Attributes:
        name: What it called itself.
        facility: The one that has a source of this name; empty: none, or several.
        noted: How often it was noted, at most once a minute: a lower bound of its attempts.
    """

    action: str
    name: str
    called: str
    peer: str
    reason: str
    facility: str
    noted: int
    last: datetime


async def recent_refusals(
    ledger: Ledger, facilities: Sequence[str] | None = None, *, hours: float = 24.0
) -> list[Refused]:
    """The refusals of the last hours, the newest first.

    Args:
        ledger: The ledger.
        facilities: Only those that concern these; ``None``: all, those of strangers among them.
        hours: How far back.
    """
    marks = ",".join("?" * len(REFUSALS))
    since = now() - timedelta(hours=hours)
    where = f"action IN ({marks}) AND at > ? AND id >= ?"
    values: list[Any] = [*REFUSALS, since, await first_since(ledger, since)]
    if facilities is not None:
        where += f" AND facility IN ({','.join('?' * len(facilities)) or 'NULL'})"
        values += list(facilities)
    rows = await ledger.fetch(
        f"SELECT at, action, facility, facts FROM audit WHERE {where}"  # noqa: S608
        " ORDER BY id DESC LIMIT ?",
        *values,
        _MOST_READ,
    )
    found: dict[tuple[str, ...], tuple[int, datetime]] = {}
    for row in rows:
        facts: dict[str, Any] = msgspec.json.decode(row["facts"])
        key = (
            row["action"],
            next((str(facts[name]) for name in _NAMES if facts.get(name)), ""),
            str(facts.get("called", "")),
            str(facts.get("peer", "")),
            str(facts.get("reason", "")),
            row["facility"],
        )
        count, last = found.get(key, (0, row["at"]))
        found[key] = count + 1, last
    return [
        Refused(
            action=action, name=name, called=called, peer=peer, reason=reason, facility=facility,
            noted=count, last=last,
        )
        for (action, name, called, peer, reason, facility), (count, last) in found.items()
    ]  # fmt: skip
