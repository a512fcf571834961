"""Matters: what needs a person, open until somebody acknowledges it or has seen to it.

A matter is a row of the outbox, written with the messages of its event. Everybody who is told
can acknowledge it; opening its exam or hold, or acting on them, is as good.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from rso.core.exam import Exam
from rso.core.on_call import ESCALATE_MINUTES, OnCall
from rso.ledger import Ledger, audit
from rso.ledger.exams import now
from rso.ledger.outbox import add_to_outbox
from rso.ledger.people import Person
from rso.ledger.standing import is_refused

__all__ = [
    "KIND",
    "Duty",
    "acknowledge",
    "duty_of",
    "exam_matters",
    "find_matter",
    "line",
    "may_acknowledge",
    "note_opened",
    "open_matter",
    "seen_to_by",
]

KIND = "matter"
_ROLES = frozenset({"technician", "coordinator", "admin"})
# Looking, and telling others, is no work on it.
_NO_WORK = (*audit.SIGHTINGS, "people notified", "note added", "message sent again")
_HOLDS_BEFORE = timedelta(minutes=10)
Row = dict[str, Any]


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """Who is on call at a facility; of its settings, whose other keys are not read here."""

    on_call: tuple[OnCall, ...] = ()
    escalate_minutes: int = ESCALATE_MINUTES


async def duty_of(ledger: Ledger, facility: str) -> Duty:
    """A facility's list; an unknown one has nobody."""
    rows = await ledger.fetch("SELECT settings FROM facility WHERE code = ?", facility)
    return msgspec.json.decode(rows[0]["settings"] or "{}", type=Duty) if rows else Duty()


async def open_matter(
    ledger: Ledger,
    event: str,
    exam: Exam | None,
    *,
    facility: str,
    about: str,
    hold: str = "",
) -> str:
    """Open a matter that is due at once, or find the one that is there; returns its key."""
    dedupe = f"{KIND}:{about}:{event}"
    payload = {
        "hold": hold,
        "told": [],
        "priority": exam.priority.value if exam else "",
        "by": await _creator(ledger, exam),
    }
    await add_to_outbox(
        ledger, KIND, event, exam=exam.id if exam else None, facility=facility,
        payload=payload, dedupe=dedupe,
    )  # fmt: skip
    rows = await ledger.fetch("SELECT id FROM outbox WHERE dedupe = ?", dedupe)
    return str(rows[0]["id"])


async def _creator(ledger: Ledger, exam: Exam | None) -> str:
    if exam is None:
        return ""
    rows = await ledger.fetch("SELECT created_by FROM exam WHERE id = ?", exam.id)
    return str(rows[0]["created_by"]) if rows else ""


def _decoded(row: Row) -> Row:
    payload, history = msgspec.json.decode(row["payload"]), msgspec.json.decode(row["history"])
    return {**row, "payload": payload, "history": history}


async def exam_matters(ledger: Ledger, exam_id: str) -> list[Row]:
    """What of an exam needed a person, the newest first."""
    rows = await ledger.fetch(
        "SELECT * FROM outbox WHERE exam = ? AND kind = ? ORDER BY created_at DESC, id DESC",
        exam_id,
        KIND,
    )
    return [_decoded(row) for row in rows]


async def find_matter(
    ledger: Ledger, matter: str, *, facilities: Sequence[str] | None
) -> Row | None:
    """A matter with its exam's number, when it is of one of these facilities."""
    if not _is_key(matter):
        return None
    rows = await ledger.fetch(
        "SELECT o.*, e.number FROM outbox o LEFT JOIN exam e ON e.id = o.exam"
        " WHERE o.kind = ? AND o.id = ?",
        KIND,
        matter,
    )
    if not rows or (facilities is not None and rows[0]["facility"] not in facilities):
        return None
    return _decoded(rows[0])


def _is_key(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def may_acknowledge(person: Person, matter: Mapping[str, Any]) -> bool:
    """Those whose work it is, and whoever was told as the one on call; not who asked for it."""
    if person.email in matter["payload"]["told"]:
        return True
    return person.role in _ROLES and person.email != matter["payload"]["by"]


def line(person: str, result: str) -> dict[str, str]:
    """One line of a matter's history."""
    return {"at": now().isoformat(), "person": person, "result": result}


async def acknowledge(
    ledger: Ledger, matter: Mapping[str, Any], person: str, how: str = "acknowledged"
) -> bool:
    """Note that somebody sees to it; whether this was the first to do so."""
    history = [*matter["history"], line(person, how)]
    async with ledger.transaction():
        changed = await ledger.execute(
            "UPDATE outbox SET state = 'done', recipient = ?, history = ?, done_at = ?"
            " WHERE id = ? AND kind = ? AND state <> 'done'",
            person,
            msgspec.json.encode(history).decode(),
            now(),
            matter["id"],
            KIND,
        )
        if changed:
            await audit.append(
                ledger, actor=person, action="acknowledged", facility=matter["facility"],
                exam=matter.get("number") or "", facts={"event": matter["event"], "how": how},
            )  # fmt: skip
    return bool(changed)


async def note_opened(
    ledger: Ledger, person: Person, *, exam: Exam | None = None, hold: str = ""
) -> None:
    """A person looks at an exam, or at a hold: what is open about it counts as acknowledged."""
    if exam is not None:
        rows = await exam_matters(ledger, exam.id)
        found = [{**row, "number": exam.number} for row in rows if row["state"] != "done"]
    else:
        found = await _matters_of_hold(ledger, hold)
    for matter in found:
        if may_acknowledge(person, matter):
            await acknowledge(ledger, matter, person.email, "opened it")


async def _matters_of_hold(ledger: Ledger, hold: str) -> list[Row]:
    rows = await ledger.fetch(
        "SELECT o.* FROM outbox o JOIN hold h ON h.facility = o.facility"
        " WHERE o.kind = ? AND o.event = 'study_held' AND o.state <> 'done' AND h.id = ?",
        KIND,
        hold,
    )
    # Holds without an exam are told together: who looks at one is at work on all.
    found = [_decoded(row) for row in rows]
    return [row for row in found if row["exam"] is None or row["payload"]["hold"] == hold]


async def seen_to_by(ledger: Ledger, matter: Mapping[str, Any]) -> str | None:
    """Who has seen to it without saying so (``rso``: it went by itself); ``None`` while open."""
    if matter["exam"] is None:
        open_ones = await ledger.fetch(
            "SELECT id FROM hold WHERE facility = ? AND state = 'open' AND opened_at >= ? LIMIT 1",
            matter["facility"],
            matter["created_at"] - _HOLDS_BEFORE,
        )
        return None if open_ones else "rso"
    marks = ",".join("?" * len(_NO_WORK))
    acted = await ledger.fetch(
        "SELECT a.actor FROM audit a JOIN exam e ON e.number = a.exam"  # noqa: S608
        " JOIN user_account u ON u.email = a.actor AND u.role <> 'customer' WHERE e.id = ?"
        f" AND a.at > ? AND a.actor <> ? AND a.action NOT IN ({marks}) ORDER BY a.id LIMIT 1",
        matter["exam"],
        matter["created_at"],
        matter["payload"]["by"],
        *_NO_WORK,
    )
    if acted:
        return str(acted[0]["actor"])
    return "rso" if await _is_over(ledger, matter) else None


async def _is_over(ledger: Ledger, matter: Mapping[str, Any]) -> bool:
    """Whether nothing is left of it to see to."""
    rows = await ledger.fetch("SELECT status FROM exam WHERE id = ?", matter["exam"])
    status = rows[0]["status"] if rows else "cancelled"
    if status in {"cancelled", "closed"}:
        return True
    if matter["event"] == "exam_created":
        return bool(status != "requested")
    if matter["event"] == "exam_overdue":
        return bool(status == "delivered")
    if matter["event"] == "release_recalled":
        return False  # what lies at the destination goes by a person's hand only
    if matter["event"] == "delivery_failed":
        return not await is_refused(ledger, matter["exam"])
    rows = await ledger.fetch("SELECT state FROM hold WHERE id = ?", matter["payload"]["hold"])
    return not rows or rows[0]["state"] != "open"
