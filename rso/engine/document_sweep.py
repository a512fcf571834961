"""What is swept while RSO runs: drafts that are too old, and files that a crash left behind."""

import asyncio
import contextlib

import structlog

from rso.core.errors import RsoError
from rso.engine.context import Engine
from rso.engine.documents import sweep_documents
from rso.engine.draft_documents import sweep_drafts

__all__ = ["run_document_sweep"]

log = structlog.get_logger(__name__)

_SECONDS = 3600.0
_EVERY = 24  # of these, the whole folder once: a file without a row is a day old before it goes


async def run_document_sweep(engine: Engine, stop: asyncio.Event) -> None:
    """Sweep once an hour until ``stop`` is set."""
    turn = 0
    while not stop.is_set():
        try:
            removed = await sweep_drafts(engine)
            if turn % _EVERY == 0:
                removed += await sweep_documents(engine)
            if removed:
                log.info("documents swept", files=removed)
        except (RsoError, OSError) as exc:
            log.warning("sweep of documents put off", reason=type(exc).__name__)
        turn += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _SECONDS)
