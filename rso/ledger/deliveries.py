"""Deliveries in the ledger: one row an exam and destination, one an instance and destination.

Whatever changes items derives their deliveries' counts anew. It locks the exams and deliveries
first: two that count at once would each miss what the other has not committed yet.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from rso.ledger import Ledger, new_id, tables
from rso.ledger.attempts import keep_attempts
from rso.ledger.exams import lock_exams, now

__all__ = [
    "IN_QUESTION",
    "Answer",
    "add_items",
    "claim_items",
    "complete_items",
    "deliveries_of",
    "ensure_delivery",
    "give_back",
    "hurry_items",
    "lock_deliveries",
    "next_due",
    "recount",
    "release_items",
    "renew_items",
    "resume_items",
    "stop_items",
]

_PENDING = "pending"


class Answer(Struct, frozen=True, kw_only=True):
    """What became of one claimed item.

    Attributes:
        state: ``acknowledged``, ``pending`` (again, not before ``next_at``) or ``stopped``.
    """

    item: str
    delivery: str
    instance: str
    state: str
    code: str = ""
    reason: str = ""
    attempts: int = 0
    next_at: datetime | None = None


async def lock_deliveries(ledger: Ledger, deliveries: Sequence[str]) -> None:
    """Let nobody else change these deliveries, or their exams, until the transaction ends."""
    if not deliveries or not ledger.for_update:
        return
    marks = ",".join("?" * len(deliveries))
    exams = await ledger.fetch(
        f"SELECT DISTINCT exam FROM delivery WHERE id IN ({marks})",  # noqa: S608
        *deliveries,
    )
    await lock_exams(ledger, [row["exam"] for row in exams])
    await ledger.fetch(
        f"SELECT id FROM delivery WHERE id IN ({marks}) ORDER BY id{ledger.for_update}",  # noqa: S608
        *deliveries,
    )


@contextlib.asynccontextmanager
async def _locked(ledger: Ledger, deliveries: Sequence[str]) -> AsyncIterator[None]:
    async with ledger.transaction():
        await lock_deliveries(ledger, deliveries)
        yield


async def ensure_delivery(ledger: Ledger, exam_id: str, destination: str, priority: int) -> str:
    """The key of the exam's delivery to a destination, made when it is new."""
    at = now()
    await ledger.insert_rows(
        tables.Delivery,
        [
            {
                "id": new_id(),
                "exam": exam_id,
                "destination": destination,
                "priority": priority,
                "state": _PENDING,
                "acknowledged": 0,
                "total": 0,
                "last_error": "",
                "created_at": at,
                "updated_at": at,
            }
        ],
        on_conflict="nothing",
    )
    rows = await ledger.fetch(
        "SELECT id FROM delivery WHERE exam = ? AND destination = ?", exam_id, destination
    )
    return str(rows[0]["id"])


async def add_items(
    ledger: Ledger, delivery: str, destination: str, instances: Sequence[str], priority: int
) -> None:
    """Queue instances for a destination; those already queued or sent are left alone."""
    at = now()
    rows = [
        {
            "id": new_id(),
            "delivery": delivery,
            "destination": destination,
            "instance": instance,
            "state": _PENDING,
            "priority": priority,
            "attempts": 0,
            "code": "",
            "reason": "",
            "next_at": at,
            "lease_owner": "",
            "lease_until": None,
            "acknowledged_at": None,
        }
        for instance in instances
    ]
    async with _locked(ledger, [delivery]):
        await ledger.insert_rows(tables.DeliveryItem, rows, on_conflict="nothing")
        await _recount(ledger, [delivery])


async def claim_items(
    ledger: Ledger, destination: str, owner: str, *, limit: int, seconds: float
) -> list[dict[str, Any]]:
    """Lease the most urgent due items of a destination, with all that sending them needs."""
    at = now()
    skip = " FOR UPDATE SKIP LOCKED" if ledger.kind == "postgres" else ""
    claimed = await ledger.fetch(
        "UPDATE delivery_item SET lease_owner = ?, lease_until = ? WHERE id IN ("  # noqa: S608
        "SELECT id FROM delivery_item WHERE destination = ? AND state = 'pending'"
        " AND next_at <= ? AND (lease_until IS NULL OR lease_until < ?)"
        f" ORDER BY priority, next_at, id LIMIT ?{skip}) RETURNING id",
        owner,
        at + timedelta(seconds=seconds),
        destination,
        at,
        at,
        limit,
    )
    if not claimed:
        return []
    marks = ",".join("?" * len(claimed))
    return await ledger.fetch(
        "SELECT d.id AS item, d.delivery, d.attempts, d.priority, i.id AS instance,"  # noqa: S608
        " i.sop_class_uid, i.sop_instance_uid, i.transfer_syntax_uid, i.size, i.dataset_offset,"
        " i.study, v.exam FROM delivery_item d JOIN instance i ON i.id = d.instance"
        f" JOIN delivery v ON v.id = d.delivery WHERE d.id IN ({marks})"
        " ORDER BY d.priority, d.next_at, d.id",
        *[row["id"] for row in claimed],
    )


async def complete_items(ledger: Ledger, owner: str, answers: Sequence[Answer]) -> list[str]:
    """Journal answers, fenced by the lease's owner; returns the deliveries that changed."""
    at = now()
    changed = sorted({a.delivery for a in answers})
    rows = [
        (
            a.state,
            a.code,
            a.reason[:200],
            a.attempts,
            a.next_at or at,
            at if a.state == "acknowledged" else None,
            a.item,
            owner,
        )
        for a in answers
    ]
    async with _locked(ledger, changed):
        await ledger.execute_many(
            "UPDATE delivery_item SET state = ?, code = ?, reason = ?, attempts = ?, next_at = ?,"
            " acknowledged_at = ?, lease_owner = '', lease_until = NULL"
            " WHERE id = ? AND lease_owner = ? AND state = 'pending'",
            rows,
        )
        # What was acknowledged the item itself tells; anything else would be forgotten.
        await keep_attempts(
            ledger,
            [
                (a.delivery, a.instance, a.state, a.code, a.reason, at)
                for a in answers
                if a.state != "acknowledged"
            ],
        )
        await _recount(ledger, changed)
    return changed


async def release_items(ledger: Ledger, owner: str) -> None:
    """Give leases back: those of ``owner``; ends it with a slash, of everyone who begins so."""
    where, values = "lease_owner = ?", list[Any]([owner])
    if owner.endswith("/"):
        where, values = "substr(lease_owner, 1, ?) = ?", [len(owner), owner]
    await ledger.execute(
        "UPDATE delivery_item SET lease_owner = '', lease_until = NULL"  # noqa: S608
        f" WHERE state = 'pending' AND lease_owner <> '' AND {where}",
        *values,
    )


async def give_back(ledger: Ledger, owner: str, items: Sequence[str]) -> None:
    """End the leases of items that were not tried; they are due again at once."""
    await ledger.execute_many(
        "UPDATE delivery_item SET lease_owner = '', lease_until = NULL"
        " WHERE id = ? AND lease_owner = ?",
        [(item, owner) for item in items],
    )


async def renew_items(ledger: Ledger, owner: str, *, seconds: float) -> None:
    """Keep the leases of ``owner`` for longer: a slow link must not lose its work."""
    await ledger.execute(
        "UPDATE delivery_item SET lease_until = ? WHERE lease_owner = ? AND state = 'pending'",
        now() + timedelta(seconds=seconds),
        owner,
    )


async def next_due(ledger: Ledger, destination: str) -> datetime | None:
    """When the next pending item of a destination may be sent."""
    rows = await ledger.fetch(
        "SELECT next_at FROM delivery_item WHERE destination = ? AND state = 'pending'"
        " ORDER BY next_at LIMIT 1",
        destination,
    )
    return rows[0]["next_at"] if rows else None


IN_QUESTION = "the Study's identity is in question"
_IN_QUESTION = "state = 'stopped' AND reason = 'the Study''s identity is in question'"
_OF_STUDY = "instance IN (SELECT id FROM instance WHERE study = ?)"


async def stop_items(
    ledger: Ledger, *, reason: str, delivery: str = "", study: str = "", state: str = "stopped"
) -> None:
    """Take what is not yet acknowledged out of the queue, by delivery or by Study.

    A delivery that is stopped stays so when a question of its Studies is answered.
    """
    waiting, by, value = "state = 'pending'", _OF_STUDY, study
    if delivery:
        waiting, by, value = f"({waiting} OR {_IN_QUESTION})", "delivery = ?", delivery
    async with _locked(ledger, await _deliveries(ledger, delivery, study)):
        touched = await ledger.fetch(
            f"UPDATE delivery_item SET state = ?, code = '', reason = ?, lease_owner = '',"  # noqa: S608
            f" lease_until = NULL WHERE {waiting} AND {by} RETURNING delivery",
            state,
            reason,
            value,
        )
        await _recount(ledger, sorted({row["delivery"] for row in touched}))


async def _deliveries(ledger: Ledger, delivery: str, study: str) -> list[str]:
    if delivery:
        return [delivery]
    rows = await ledger.fetch(
        f"SELECT DISTINCT delivery FROM delivery_item WHERE {_OF_STUDY}",  # noqa: S608
        study,
    )
    return [row["delivery"] for row in rows]


_SENDABLE = (
    "EXISTS (SELECT 1 FROM instance i JOIN study s ON s.id = i.study JOIN exam e ON e.id = s.exam"
    " WHERE i.id = delivery_item.instance AND i.purged_at IS NULL AND NOT i.conflict"
    " AND s.state = 'matched' AND e.status <> 'cancelled')"
)
_ASKED = (
    "EXISTS (SELECT 1 FROM instance i JOIN study s ON s.id = i.study"
    " WHERE i.id = delivery_item.instance AND i.purged_at IS NULL AND NOT i.conflict"
    " AND s.state = 'stopped')"
)


async def resume_items(
    ledger: Ledger, *, delivery: str = "", study: str = "", everything: bool = False
) -> int:
    """Queue stopped items again at once (``everything``: acknowledged ones too, a resend).

    By Study, those only that its question had stopped: what a person stopped, or a destination
    refused, stays so. What was taken out of the exam stays out, a Study whose identity is in
    question waits for its hold, and for nothing else; nothing is sent of a cancelled exam, of
    what gave way to other content, or of what has left the archive.
    """
    states = "('stopped', 'acknowledged')" if everything else "('stopped')"
    by, value = ("delivery = ?", delivery) if delivery else (_OF_STUDY, study)
    where = f"state IN {states} AND {by} AND {_SENDABLE}"
    if study:
        where += f" AND {_IN_QUESTION}"
    async with _locked(ledger, await _deliveries(ledger, delivery, study)):
        if everything:
            done = await ledger.fetch(
                "SELECT delivery, instance, code, reason, acknowledged_at FROM delivery_item"  # noqa: S608
                f" WHERE acknowledged_at IS NOT NULL AND {where}",
                value,
            )
            await keep_attempts(
                ledger,
                [
                    (d["delivery"], d["instance"], "acknowledged", d["code"], d["reason"],
                     d["acknowledged_at"])
                    for d in done
                ],
            )  # fmt: skip
        touched = await ledger.fetch(
            "UPDATE delivery_item SET state = 'pending', attempts = 0, acknowledged_at = NULL,"  # noqa: S608
            f" next_at = ?, lease_owner = '', lease_until = NULL WHERE {where} RETURNING delivery",
            now(),
            value,
        )
        if delivery:  # the answer, which takes these only, lets go on what a person let go on
            await ledger.execute(
                "UPDATE delivery_item SET code = '', reason = ?"  # noqa: S608
                f" WHERE state = 'stopped' AND {by} AND {_ASKED}",
                IN_QUESTION,
                value,
            )
        await _recount(ledger, sorted({row["delivery"] for row in touched}))
    return len(touched)


async def hurry_items(ledger: Ledger, destination: str) -> None:
    """Make everything due at once that waits for its next try."""
    await ledger.execute(
        "UPDATE delivery_item SET next_at = ? WHERE destination = ? AND state = 'pending'"
        " AND next_at > ?",
        now(),
        destination,
        now(),
    )


async def deliveries_of(ledger: Ledger, exam_id: str) -> list[dict[str, Any]]:
    """An exam's deliveries, by destination."""
    return await ledger.fetch("SELECT * FROM delivery WHERE exam = ? ORDER BY destination", exam_id)


async def recount(ledger: Ledger, deliveries: Sequence[str]) -> None:
    """Derive each delivery's counts and state from its items."""
    async with _locked(ledger, deliveries):
        await _recount(ledger, deliveries)


async def _recount(ledger: Ledger, deliveries: Sequence[str]) -> None:
    for delivery in deliveries:
        counts = await ledger.fetch(
            "SELECT state, count(*) AS n, max(attempts) AS attempts FROM delivery_item"
            " WHERE delivery = ? AND state <> 'cancelled' GROUP BY state",
            delivery,
        )
        by_state = {row["state"]: row["n"] for row in counts}
        waiting = next((r["attempts"] for r in counts if r["state"] == _PENDING), 0) or 0
        total, acknowledged = sum(by_state.values()), by_state.get("acknowledged", 0)
        await ledger.execute(
            "UPDATE delivery SET acknowledged = ?, total = ?, state = ?, updated_at = ?"
            " WHERE id = ?",
            acknowledged,
            total,
            _state(by_state, acknowledged, total, waiting),
            now(),
            delivery,
        )


def _state(by_state: dict[str, int], acknowledged: int, total: int, attempts: int) -> str:
    if by_state.get(_PENDING):
        if attempts:
            return "waiting"
        return "sending" if acknowledged else _PENDING
    if by_state.get("stopped"):
        return "stopped"
    return "delivered" if total and acknowledged == total else _PENDING
