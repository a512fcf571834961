"""Taking a Study back from an exam, when a match or a release turns out to be wrong."""

from collections.abc import Mapping
from typing import Any

from rso.engine.context import Engine
from rso.engine.router import NO_DESTINATION
from rso.ledger.deliveries import deliveries_of, recount, stop_items
from rso.ledger.exams import count_instances, now

__all__ = ["unlink_study"]


async def unlink_study(engine: Engine, row: Mapping[str, Any], *, state: str) -> int:
    """Take a Study out of its exam and stop what is not yet sent of it.

    Returns:
        How many of its instances some destination had acknowledged already: what is sent again
        just now, or was acknowledged after it had been stopped, too. One that a session had begun
        is told of when its acknowledgement comes (``rso.engine.late``).
    """
    ledger = engine.ledger
    await stop_items(
        ledger, study=row["id"], state="cancelled", reason="the Study was taken out of the exam"
    )
    sent = await ledger.fetch(
        "SELECT count(DISTINCT d.instance) AS n FROM delivery_item d"
        " JOIN instance i ON i.id = d.instance JOIN delivery v ON v.id = d.delivery"
        " WHERE i.study = ? AND v.exam = ? AND (d.state = 'acknowledged' OR EXISTS (SELECT 1"
        " FROM delivery_attempt a WHERE a.delivery = d.delivery AND a.subject = d.instance"
        " AND a.state IN ('acknowledged', 'late')))",
        row["id"],
        row["exam"],
    )
    # What was acknowledged no longer counts for this exam's n of n.
    await ledger.execute(
        "UPDATE delivery_item SET state = 'cancelled' WHERE instance IN"
        " (SELECT id FROM instance WHERE study = ?)",
        row["id"],
    )
    await recount(ledger, [d["id"] for d in await deliveries_of(ledger, row["exam"])])
    await ledger.execute(
        "UPDATE study SET exam = NULL, state = ?, correct_identity = ?, updated_at = ?"
        " WHERE id = ?",
        state,
        False,
        now(),
        row["id"],
    )
    await count_instances(ledger, row["exam"])
    # That it had nowhere to go is no question any more.
    await ledger.execute(
        "UPDATE hold SET state = 'recalled', resolved_by = 'matching', resolved_at = ?,"
        " resolution = 'the Study was taken out of the exam'"
        " WHERE study = ? AND state = 'open' AND reason = ?",
        now(),
        row["id"],
        NO_DESTINATION,
    )
    return int(sent[0]["n"])
