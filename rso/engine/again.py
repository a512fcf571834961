"""Work that goes on when the database answers again: an outage or a deadlock ends no process."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from rso.ledger import LedgerUnavailable

__all__ = ["run_again"]

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 1.0


def _leaves(group: BaseExceptionGroup[LedgerUnavailable]) -> list[BaseException]:
    """What a group holds, however deep."""
    found = list[BaseException]()
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found


async def run_again(run: Callable[[], Awaitable[None]], stop: asyncio.Event, *, what: str) -> None:
    """Await ``run()``, and anew after a pause each time the database does not answer.

    Args:
        run: May be begun again at any point: it goes on from what is in the ledger.
        stop: Set, what has failed is not begun again.
        what: For the log, which says a reason once.
    """
    said = ""
    while True:
        try:
            await run()
        except* LedgerUnavailable as gone:  # by itself, or of tasks that ran side by side
            (reason, *_) = {str(exc) for exc in _leaves(gone)}
            if reason != said:
                said = reason
                log.warning("waits for the database", what=what, reason=said)
        else:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _PAUSE_SECONDS)
        if stop.is_set():
            return
