"""What a person may do with a delivery or a destination: retry, resend, stop, pause, resume."""

from collections.abc import Sequence

from rso.core.errors import RoutingError
from rso.engine.check import Check, test_destination
from rso.engine.context import Engine
from rso.engine.destinations import find_destination
from rso.engine.settle import conclude
from rso.ledger import audit
from rso.ledger.deliveries import hurry_items, resume_items, stop_items
from rso.ledger.destinations import stopped_deliveries

__all__ = [
    "check_destination",
    "pause_destination",
    "resend_delivery",
    "retry_delivery",
    "retry_destination",
    "stop_delivery",
]


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


async def pause_destination(
    engine: Engine,
    code: str,
    *,
    paused: bool,
    actor: str,
    facilities: Sequence[str] | None = None,
) -> None:
    """Hold a destination's queue, or let it go on.

    Raises:
        ExamError: There is none of these facilities.
        RoutingError: It serves others too.
    """
    ledger = engine.ledger
    if await find_destination(ledger, code, facilities=facilities):
        raise RoutingError("this destination serves other facilities too")
    async with ledger.transaction():
        await ledger.execute(
            "UPDATE destination SET paused = ?, open_until = NULL WHERE code = ?", paused, code
        )
        action = "destination paused" if paused else "destination resumed"
        await audit.append(ledger, actor=actor, action=action, facts={"destination": code})
    engine.work.set()


async def retry_destination(
    engine: Engine, code: str, *, actor: str, facilities: Sequence[str] | None = None
) -> int:
    """Queue again what stopped, and try at once what waits for its next turn.

    Of one's own facilities only; what was stopped because its exam was cancelled or its
    identity is in question stays. Returns how many instances were stopped and go on.

    Raises:
        ExamError: There is no such destination of these facilities.
    """
    ledger = engine.ledger
    shared = await find_destination(ledger, code, facilities=facilities)
    count = 0
    async with ledger.transaction():
        for delivery in await stopped_deliveries(ledger, code, facilities):
            count += await resume_items(ledger, delivery=delivery)
        if not shared:
            await hurry_items(ledger, code)
        facts = {"destination": code, "instances": str(count)}
        await audit.append(ledger, actor=actor, action="destination retried", facts=facts)
    engine.work.set()
    return count


async def check_destination(
    engine: Engine, code: str, *, facilities: Sequence[str] | None = None
) -> Check:
    """Ask a destination whether it is there (C-ECHO).

    Raises:
        ExamError: There is no such destination of these facilities.
    """
    await find_destination(engine.ledger, code, facilities=facilities)
    return await test_destination(engine, code)
