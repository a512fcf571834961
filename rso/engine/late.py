"""Acknowledgements of what had just left when it was stopped or taken out of its exam."""

from collections import Counter
from collections.abc import Sequence

from rso.engine.context import Engine
from rso.engine.outbox import emit
from rso.engine.settle import conclude
from rso.ledger import audit
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
            more = "instance was" if count == 1 else "instances were"
            await emit(
                ledger,
                "delivery_failed",
                exam=exam,
                facts={
                    "destination": destination,
                    "code": "recall",
                    "reason": f"{count} more {more} sent under a wrong match",
                },
            )
    await conclude(engine, sorted({row["exam"] for row in rows}))
