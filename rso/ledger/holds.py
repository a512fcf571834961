"""Holds in the ledger: what waits for a person's decision."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from rso.ledger import Ledger, new_id, tables
from rso.ledger.exams import now

__all__ = [
    "HoldRow",
    "Place",
    "close_hold",
    "find_holds",
    "hold_by_id",
    "open_hold",
    "open_holds",
    "question_open",
    "reason_open",
]


Place = tuple[bool, datetime, str]
"""Of a hold among those that wait, alarms first: whether it is one, since when, and its key."""


class HoldRow(Struct, frozen=True, kw_only=True):
    """A hold as it is listed.

    Attributes:
        kind: ``study`` or ``instance``.
        row: Row of the matching table; 0 when the table did not decide.
        instances: How many instances wait for this decision.
    """

    id: str
    kind: str
    row: int
    reason: str
    facility: str
    instances: int
    alarm: bool
    state: str
    study: str
    instance: str | None
    exam: str | None
    evidence: dict[str, Any]
    first_person: str
    resolved_by: str
    resolution: str
    opened_at: Any
    resolved_at: Any


_SELECT = (
    "SELECT h.*, CASE WHEN h.kind = 'instance' THEN 1 ELSE"
    " (SELECT count(*) FROM instance i WHERE i.study = h.study) END AS instances FROM hold h"
)


def _row(values: Mapping[str, Any]) -> HoldRow:
    return HoldRow(
        id=values["id"],
        kind=values["kind"],
        row=values["table_row"],
        reason=values["reason"],
        facility=values["facility"],
        instances=values["instances"],
        alarm=values["alarm"],
        state=values["state"],
        study=values["study"],
        instance=values["instance"],
        exam=values["exam"],
        evidence=msgspec.json.decode(values["evidence"]),
        first_person=values["first_person"],
        resolved_by=values["resolved_by"],
        resolution=values["resolution"],
        opened_at=values["opened_at"],
        resolved_at=values["resolved_at"],
    )


async def open_hold(
    ledger: Ledger,
    *,
    kind: str,
    facility: str,
    study: str,
    reason: str,
    instance: str | None = None,
    row: int = 0,
    alarm: bool = False,
    evidence: Mapping[str, Any] | None = None,
) -> str | None:
    """Open a hold; ``None`` when the same thing already waits for the same reason."""
    reason = reason[:64]  # a plugin's words
    if await reason_open(ledger, study=study, reason=reason, instance=instance):
        return None
    hold_id = new_id()
    await ledger.insert_rows(
        tables.Hold,
        [
            {
                "id": hold_id,
                "kind": kind,
                "facility": facility,
                "study": study,
                "instance": instance,
                "table_row": row,
                "reason": reason,
                "alarm": alarm,
                "state": "open",
                "exam": None,
                "evidence": msgspec.json.encode(evidence or {}).decode(),
                "first_person": "",
                "resolved_by": "",
                "resolution": "",
                "opened_at": now(),
                "resolved_at": None,
            }
        ],
    )
    return hold_id


async def reason_open(
    ledger: Ledger, *, study: str, reason: str = "", instance: str | None = None
) -> bool:
    """Whether an open hold on this Study (or instance) exists, for this reason or for any."""
    where, values = "study = ? AND state = 'open'", [study]
    if reason:
        where += " AND reason = ?"
        values.append(reason)
    if instance:
        where += " AND instance = ?"
        values.append(instance)
    rows = await ledger.fetch(f"SELECT id FROM hold WHERE {where} LIMIT 1", *values)  # noqa: S608
    return bool(rows)


async def question_open(ledger: Ledger, facility: str, study_instance_uid: str) -> bool:
    """Whether a part of this Study waits for a person to say whose it is (row 2 of the table)."""
    rows = await ledger.fetch(
        "SELECT h.id FROM study s JOIN hold h ON h.study = s.id WHERE s.facility = ?"
        " AND s.study_instance_uid = ? AND h.state = 'open' AND h.kind = 'study'"
        " AND h.table_row = 2 LIMIT 1",
        facility,
        study_instance_uid,
    )
    return bool(rows)


async def hold_by_id(ledger: Ledger, hold_id: str, *, lock: bool = False) -> HoldRow | None:
    """One hold; ``lock``: nobody else decides on it until the transaction ends."""
    tail = ledger.for_update if lock else ""
    rows = await ledger.fetch(f"{_SELECT} WHERE h.id = ?{tail}", hold_id)
    return _row(rows[0]) if rows else None


def _behind(place: Place) -> tuple[str, list[Any]]:
    """What follows a place where alarms come first, as SQL."""
    alarm, at, key = place
    same = "(opened_at > ? OR (opened_at = ? AND id > ?))"
    where = f"(NOT alarm OR {same})" if alarm else f"(NOT alarm AND {same})"
    return f" AND {where}", [at, at, key]


async def find_holds(
    ledger: Ledger,
    *,
    facilities: Sequence[str] | None = None,
    state: str = "open",
    reason: str = "",
    alarms_first: bool = False,
    after: Place | None = None,
    most: int | None = None,
) -> list[HoldRow]:
    """Holds in this state, oldest first.

    Args:
        ledger: The ledger.
        facilities: Whose; ``None`` means all.
        state: How they stand.
        reason: Only those for this reason.
        alarms_first: Those with an alarm come before the others.
        after: Only what follows this place, for the page that follows (with ``alarms_first``).
        most: At most so many.
    """
    if facilities is not None and not facilities:
        return []
    where, values = "h.state = ?", list[Any]([state])
    if reason:
        where += " AND h.reason = ?"
        values.append(reason)
    if facilities is not None:
        where += f" AND h.facility IN ({','.join('?' * len(facilities))})"
        values += facilities
    if after is not None:
        behind, more = _behind(after)
        where, values = f"{where}{behind}", [*values, *more]
    order = "h.alarm DESC, h.opened_at, h.id" if alarms_first else "h.opened_at, h.id"
    limit = "" if most is None else f" LIMIT {most:d}"
    rows = await ledger.fetch(f"{_SELECT} WHERE {where} ORDER BY {order}{limit}", *values)
    return [_row(values) for values in rows]


async def open_holds(
    ledger: Ledger, facilities: Sequence[str] | None, *, after: Place | None = None
) -> dict[str, Any]:
    """How many holds wait, how many of them with an alarm, and since when the oldest does.

    ``after``: of those that follow this place, alarms first.
    """
    where, values = "state = 'open'", list[Any]()
    if facilities is not None:
        where += f" AND facility IN ({','.join('?' * len(facilities)) or 'NULL'})"
        values += facilities
    if after is not None:
        behind, more = _behind(after)
        where, values = f"{where}{behind}", [*values, *more]
    rows = await ledger.fetch(
        "SELECT count(*) AS n, sum(CASE WHEN alarm THEN 1 ELSE 0 END) AS alarms"  # noqa: S608
        f" FROM hold WHERE {where}",
        *values,
    )
    oldest = rows[0]["n"] and await ledger.fetch(
        f"SELECT opened_at FROM hold WHERE {where} ORDER BY opened_at LIMIT 1",  # noqa: S608
        *values,
    )
    return {
        "count": rows[0]["n"],
        "alarms": rows[0]["alarms"] or 0,
        "oldest": oldest[0]["opened_at"] if oldest else None,
    }


async def close_hold(
    ledger: Ledger, hold_id: str, *, state: str, actor: str, resolution: str, exam: str | None
) -> None:
    """Write how a hold ended."""
    await ledger.execute(
        "UPDATE hold SET state = ?, resolved_by = ?, resolution = ?, exam = ?, resolved_at = ?"
        " WHERE id = ?",
        state,
        actor,
        resolution,
        exam,
        now(),
        hold_id,
    )
