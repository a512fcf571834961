"""What happened to an exam, in one line of time: people, arrivals, deliveries."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from rso.core.delivery import reason_words
from rso.core.exam import Exam
from rso.ledger import Ledger, audit
from rso.ledger.aggregates import with_times
from rso.ledger.arrivals import arrivals_of
from rso.ledger.attempts import attempts_of_exam

__all__ = ["Moment", "Timeline", "timeline_of"]

_MOST = 200


class Moment(Struct, frozen=True, kw_only=True):
    """One line of the timeline.

    Attributes:
        at: When it happened, or began.
        until: When it ended, where it took time.
        kind: ``person``, ``images``, ``delivered`` or ``fault``.
        what: In words.
        who: A person, a source or a destination.
        more: Details in words.
        batch: The key of the first of the batches that it is of, for the list of the instances.
    """

    at: datetime
    kind: str
    what: str
    who: str = ""
    more: str = ""
    until: datetime | None = None
    batch: str = ""


class Timeline(Struct, frozen=True, kw_only=True):
    """The newest moments of an exam.

    Attributes:
        moments: The newest first.
        older: How many there are besides; of images that were not looked at, how many batches.
    """

    moments: list[Moment]
    older: int = 0


async def timeline_of(ledger: Ledger, exam: Exam, *, most: int | None = None) -> Timeline:
    """What happened to an exam; who merely looked is in the audit alone."""
    most = most or _MOST
    people, unread = await _people(ledger, exam, most)
    arrivals, batches = await arrivals_of(ledger, exam.id)
    attempts, causes = await attempts_of_exam(ledger, exam.id, most)
    moments = [
        *people,
        *(_arrival(row) for row in arrivals),
        *await _acknowledged(ledger, exam),
        *(_fault(row) for row in attempts),
    ]
    moments.sort(key=lambda m: m.until or m.at, reverse=True)
    older = len(moments[most:]) + unread + batches + causes
    return Timeline(moments=moments[:most], older=older)


async def _people(ledger: Ledger, exam: Exam, most: int) -> tuple[list[Moment], int]:
    """What people did, the newest first; how much of it is older than that."""
    rows = await ledger.fetch(
        f"SELECT at, actor, action, facts FROM audit WHERE exam = ? AND {audit.EVENTS}"  # noqa: S608
        " ORDER BY id DESC LIMIT ?",
        exam.number,
        most,
    )
    moments = [
        Moment(
            at=row["at"], kind="person", what=row["action"], who=row["actor"],
            more=_said(msgspec.json.decode(row["facts"] or "{}")),
        )
        for row in rows
    ]  # fmt: skip
    if len(rows) < most:
        return moments, 0
    (all_of_them,) = await ledger.fetch(
        f"SELECT count(*) AS n FROM audit WHERE exam = ? AND {audit.EVENTS}",  # noqa: S608
        exam.number,
    )
    return moments, all_of_them["n"] - len(rows)


_KEYS = frozenset({"document", "hold", "origin"})  # for programs


def _said(facts: dict[str, Any]) -> str:
    said = [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()
            if value and name not in _KEYS]  # fmt: skip
    return ", ".join(said)


def _arrival(row: dict[str, Any]) -> Moment:
    count, series, batches = row["instances"], row["series"], len(row["batches"])
    size = f"{row['size'] / 1048576:.1f} MB"
    by = f", by {row['account']}" if row["account"] else ""
    parts = f", in {batches} batches" if batches > 1 else ""
    return Moment(
        at=row["first_at"],
        until=row["last_at"],
        kind="images",
        what=f"{count} {'image' if count == 1 else 'images'} received",
        who=row["source"],
        more=f"{series} Series, {size}, by {row['channel']} from {row['peer_address']}{by}{parts}",
        batch=row["id"],
    )


async def _acknowledged(ledger: Ledger, exam: Exam) -> list[Moment]:
    rows = await ledger.fetch(
        "SELECT v.destination, count(*) AS n, min(d.acknowledged_at) AS first_at,"
        " max(d.acknowledged_at) AS last_at FROM delivery_item d"
        " JOIN delivery v ON v.id = d.delivery WHERE v.exam = ? AND d.state = 'acknowledged'"
        " GROUP BY v.destination",
        exam.id,
    )
    return [
        Moment(
            at=row["first_at"], until=row["last_at"], kind="delivered", who=row["destination"],
            what=f"{row['n']} {'image' if row['n'] == 1 else 'images'} acknowledged",
        )
        for row in with_times(rows, "first_at", "last_at")
    ]  # fmt: skip


_ENDINGS = {"pending": "will be tried again", "stopped": "stopped, a person must look"}
_THERE = {
    "acknowledged": ("had been acknowledged", "before they were sent again"),
    "late": ("left in the last moment", "acknowledged after sending had been stopped"),
}


def _fault(row: dict[str, Any]) -> Moment:
    count = row["instances"]
    if row["state"] in _THERE:
        said, more = _THERE[row["state"]]
        what = f"{count} {'image' if count == 1 else 'images'} {said}"
    elif count:
        what = f"{count} {'image' if count == 1 else 'images'} not taken"
        tried = f"{row['times']} attempts, " if row["times"] > count else ""
        why = f"{row['code']} {reason_words(row['code'], row['reason'])}".strip()
        more = f"{why} ({tried}{_ENDINGS[row['state']]})"
    else:
        what = "could not be reached"
        more = f"{row['reason']} ({row['times']} {'time' if row['times'] == 1 else 'times'})"
    kind = "delivered" if row["state"] == "acknowledged" else "fault"
    return Moment(
        at=row["first_at"], until=row["last_at"], kind=kind, what=what, who=row["destination"],
        more=more,
    )  # fmt: skip
