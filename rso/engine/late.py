"""Acknowledgements of what had just left when it was stopped or taken out of its exam."""

from collections import Counter
from collections.abc import Sequence

from rso.engine.context import Engine
from rso.engine.outbox import emit
from rso.engine.settle import conclude
from rso.ledger import Ledger, audit
from rso.ledger.deliveries import Answer
from rso.ledger.leases import keep_late

__all__ = ["note_late"]


async def note_late(engine: Engine, destination: str, answers: Sequence[Answer]) -> None:
    """Write down what a destination has although it was not to have it any more, and tell.

    Call inside the transaction that completed the same answers.
    """
    ledger = engine.ledger
    rows = await keep_late(ledger, answers)
    counts = Counter((r["exam"], r["number"], r["facility"], r["state"]) for r in rows)
    for (exam, number, facility, state), count in counts.items():
        if state == "pending":
            continue  # it may go, and goes again: the attempt tells
        recalled = state == "cancelled"
        await audit.append(
            ledger,
            actor="delivery",
            action="sent while it was taken out" if recalled else "sent while it was stopped",
            facility=facility,
            exam=number,
            facts={"destination": destination, "sent": str(count)},
        )
        if recalled:
            hold = await _hold_of(ledger, exam, answers)
            # Once for a hold, whichever destination it was: the exam's are told together.
            facts = {"destination": "" if hold else destination, "hold": hold, "sent": count}
            await emit(ledger, "release_recalled", exam=exam, facts=facts)
    await conclude(engine, sorted({row["exam"] for row in rows}))


async def _hold_of(ledger: Ledger, exam: str, answers: Sequence[Answer]) -> str:
    """The hold whose release was taken back; empty when an edit of the exam took it out."""
    instances = sorted({answer.instance for answer in answers})
    rows = await ledger.fetch(
        "SELECT h.id FROM hold h JOIN instance i ON i.study = h.study WHERE h.exam = ?"  # noqa: S608
        f" AND h.state = 'recalled' AND i.id IN ({','.join('?' * len(instances))})"
        " ORDER BY h.resolved_at DESC LIMIT 1",
        exam,
        *instances,
    )
    return str(rows[0]["id"]) if rows else ""
