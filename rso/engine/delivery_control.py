"""What a person may do with a delivery or a destination: retry, resend, stop, pause, resume."""

from rso.engine.context import Engine
from rso.engine.settle import conclude
from rso.ledger.deliveries import resume_items, stop_items

__all__ = ["pause_destination", "resend_delivery", "retry_delivery", "stop_delivery"]


async def retry_delivery(engine: Engine, delivery: str) -> int:
    """Queue what was stopped again; returns how many instances."""
    async with engine.ledger.transaction():
        count = await resume_items(engine.ledger, delivery=delivery)
    engine.work.set()
    return count


async def resend_delivery(engine: Engine, delivery: str) -> int:
    """Queue everything again, acknowledged or not."""
    async with engine.ledger.transaction():
        count = await resume_items(engine.ledger, delivery=delivery, everything=True)
    engine.work.set()
    return count


async def stop_delivery(engine: Engine, delivery: str, *, reason: str) -> None:
    """Stop sending what is not yet acknowledged."""
    async with engine.ledger.transaction():
        await stop_items(engine.ledger, delivery=delivery, reason=reason)
        rows = await engine.ledger.fetch("SELECT exam FROM delivery WHERE id = ?", delivery)
        await conclude(engine, [row["exam"] for row in rows])


async def pause_destination(engine: Engine, code: str, *, paused: bool) -> None:
    """Hold a destination's queue, or let it go on."""
    await engine.ledger.execute(
        "UPDATE destination SET paused = ?, open_until = NULL WHERE code = ?", paused, code
    )
    engine.work.set()
