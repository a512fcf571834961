"""What a courier still has a lease of, and what was acknowledged after its lease was taken away."""

from collections.abc import Sequence
from typing import Any

from rso.ledger.attempts import keep_attempts
from rso.ledger.deliveries import IN_QUESTION, Answer, lock_deliveries, recount
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger

__all__ = ["end_leases", "keep_late", "leased_items", "retry_local"]


async def leased_items(ledger: Ledger, owner: str) -> set[str]:
    """What ``owner`` may send: what was stopped, taken out or leased by another is missing."""
    rows = await ledger.fetch(
        "SELECT id FROM delivery_item WHERE lease_owner = ? AND lease_owner <> ''"
        " AND state = 'pending'",
        owner,
    )
    return {row["id"] for row in rows}


async def end_leases(ledger: Ledger, exam: str) -> None:
    """Have couriers give back what they have of an exam, and ask for it anew."""
    await ledger.execute(
        "UPDATE delivery_item SET lease_owner = '', lease_until = NULL WHERE state = 'pending'"
        " AND lease_owner <> '' AND delivery IN (SELECT id FROM delivery WHERE exam = ?)",
        exam,
    )


async def keep_late(ledger: Ledger, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Write down acknowledgements that no lease stood for any more: the destination has these.

    What was stopped is acknowledged from now on. What was taken out of the exam stays out, and
    what is to be sent again waits for that. Call after ``complete_items``, with the same answers.

    Returns:
        The late ones, each with its item's ``state`` as it was, ``delivery``, ``exam``,
        and the exam's ``number`` and ``facility``.
    """
    taken = {a.item: a for a in answers if a.state == "acknowledged"}
    if not taken:
        return []
    rows = await ledger.fetch(
        "SELECT d.id AS item, d.state, d.delivery, v.exam, e.number, e.facility"  # noqa: S608
        " FROM delivery_item d JOIN delivery v ON v.id = d.delivery JOIN exam e ON e.id = v.exam"
        f" WHERE d.id IN ({','.join('?' * len(taken))}) AND d.state <> 'acknowledged'",
        *taken,
    )
    at, late = now(), [taken[row["item"]] for row in rows]
    await keep_attempts(
        ledger, [(a.delivery, a.instance, "late", a.code, a.reason, at) for a in late]
    )
    await ledger.execute_many(
        "UPDATE delivery_item SET state = 'acknowledged', code = ?, reason = ?, attempts = ?,"
        " acknowledged_at = ? WHERE id = ? AND state = 'stopped'",
        [(a.code, a.reason[:200], a.attempts, at, a.item) for a in late],
    )
    await recount(ledger, sorted({a.delivery for a in late}))
    return rows


async def retry_local(ledger: Ledger, instance: str) -> None:
    """Queue an instance again that stopped because its file could not be read, and can be now.

    What a courier has leased it reads anew. Nothing goes on of a cancelled exam; of a Study whose
    identity is in question it waits for the answer.
    """
    rows = await ledger.fetch(
        "SELECT d.id, d.delivery, s.state FROM delivery_item d JOIN instance i ON i.id = d.instance"
        " JOIN study s ON s.id = i.study JOIN delivery v ON v.id = d.delivery"
        " JOIN exam e ON e.id = v.exam WHERE d.instance = ? AND s.state IN ('matched', 'stopped')"
        " AND s.exam = e.id AND e.status <> 'cancelled'"
        " AND (d.state = 'pending' OR (d.state = 'stopped' AND d.code = 'local'))",
        instance,
    )
    deliveries = sorted({row["delivery"] for row in rows})
    await lock_deliveries(ledger, deliveries)
    await ledger.execute_many(
        "UPDATE delivery_item SET state = 'pending', attempts = 0, next_at = ?, lease_owner = '',"
        " lease_until = NULL WHERE id = ? AND (state = 'pending'"
        " OR (state = 'stopped' AND code = 'local'))",
        [(now(), row["id"]) for row in rows if row["state"] == "matched"],
    )
    await ledger.execute_many(
        "UPDATE delivery_item SET code = '', reason = ? WHERE id = ? AND state = 'stopped'"
        " AND code = 'local'",
        [(IN_QUESTION, row["id"]) for row in rows if row["state"] == "stopped"],
    )
    await recount(ledger, deliveries)
