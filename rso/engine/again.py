"""Work that goes on: an outage of the database or a deadlock ends no process, nor does a fault."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from rso.ledger import LedgerUnavailable

__all__ = ["keep_running", "run_again"]

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 1.0
_FAULT_SECONDS = 5.0


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


async def keep_running(
    run: Callable[[], Awaitable[None]], stop: asyncio.Event, *, what: str
) -> None:
    """``run_again``, and anew after any other fault too: its process has other work to do.

    Args:
        run: As ``run_again`` takes it.
        stop: As ``run_again`` takes it.
        what: For the log, which has each fault whole once, until another comes between.
    """
    said = ""
    while True:
        try:
            await run_again(run, stop, what=what)
        except Exception as exc:
            if repr(exc) != said:
                said = repr(exc)
                log.exception("begins anew after a fault", what=what)
        else:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _FAULT_SECONDS)
        if stop.is_set():
            return
