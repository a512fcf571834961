"""The purge: images of exams that are proven delivered and kept long enough leave the archive.

The documents of their requests go with them.

First the ledger says, in one transaction with the audit, that they go; then the files are
removed; then the ledger says that they are gone. Killed anywhere, the next run goes on.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime

import structlog
from msgspec import Struct

from rso.core.errors import RsoError
from rso.core.retention import kept_because
from rso.engine.context import Engine
from rso.engine.documents import let_documents_go, sweep_documents
from rso.engine.thumbnails import forget_thumbnails
from rso.ledger import audit
from rso.ledger.exams import now
from rso.ledger.retention import (
    candidates,
    images_of,
    leaving,
    mark_purged,
    mark_removed,
    standing_of,
)

__all__ = ["Purge", "PurgedExam", "plan_purge", "purge", "run_purge"]

log = structlog.get_logger(__name__)

_GROUP = 200
_HOUR = 3600.0


class PurgedExam(Struct, frozen=True, kw_only=True):
    """An exam whose images go, or went; the number without dashes.

    Attributes:
        size: Bytes of its datasets.
        last_at: When the retention period began.
    """

    exam_number: str
    facility: str
    status: str
    instances: int
    size: int
    last_at: datetime | None


class Purge(Struct, frozen=True, kw_only=True):
    """What a run did, or would do.

    Attributes:
        applied: False for a dry run.
        files_removed: Files that are gone after this run, those of an interrupted one included.
    """

    applied: bool
    exams: list[PurgedExam]
    instances: int
    size: int
    files_removed: int = 0


async def plan_purge(engine: Engine) -> Purge:
    """What ``purge`` would do now; changes nothing."""
    return await _walk(engine, apply=False, actor="")


async def purge(engine: Engine, *, actor: str) -> Purge:
    """Let the images of every exam go that may; safe to run twice, or by two at once."""
    done = await _walk(engine, apply=True, actor=actor)
    removed = await _remove_files(engine)
    await sweep_documents(engine)
    return Purge(
        applied=True,
        exams=done.exams,
        instances=done.instances,
        size=done.size,
        files_removed=removed,
    )


async def _walk(engine: Engine, *, apply: bool, actor: str) -> Purge:
    found: list[PurgedExam] = []
    after = "00000000-0000-0000-0000-000000000000"
    while rows := await candidates(engine.ledger, after, _GROUP):
        after = str(rows[-1]["id"])
        for row in rows:
            if apply:
                # Decided again inside the transaction that acts on it.
                async with engine.ledger.transaction():
                    exam = await _consider(engine, row["id"], row["number"], row["facility"])
                    if exam is not None:
                        exam = await _let_go(engine, row["id"], exam, actor)
            else:
                exam = await _consider(engine, row["id"], row["number"], row["facility"])
            if exam is not None:
                found.append(exam)
    return Purge(
        applied=apply,
        exams=found,
        instances=sum(exam.instances for exam in found),
        size=sum(exam.size for exam in found),
    )


async def _consider(engine: Engine, exam_id: str, number: str, facility: str) -> PurgedExam | None:
    standing = await standing_of(engine.ledger, exam_id)
    if standing is None or kept_because(standing, now()):
        return None
    images = await images_of(engine.ledger, exam_id)
    return PurgedExam(
        exam_number=number,
        facility=facility,
        status=standing.status.value,
        instances=len(images),
        size=sum(image["size"] for image in images),
        last_at=standing.last_at or standing.cancelled_at,
    )


async def _let_go(engine: Engine, exam_id: str, exam: PurgedExam, actor: str) -> PurgedExam | None:
    images = [str(image["id"]) for image in await images_of(engine.ledger, exam_id)]
    if not await mark_purged(engine.ledger, images):
        return None
    documents = await let_documents_go(engine.ledger, exam_id)
    await audit.append(
        engine.ledger,
        actor=actor,
        action="images purged",
        facility=exam.facility,
        exam=exam.exam_number,
        facts={
            "instances": str(exam.instances),
            "bytes": str(exam.size),
            "documents": str(documents),
        },
    )
    log.info("images purged", exam=exam.exam_number, instances=exam.instances)
    return exam


async def _remove_files(engine: Engine) -> int:
    removed = 0
    while instances := await leaving(engine.ledger, _GROUP):
        await asyncio.to_thread(_unlink, engine, instances)
        await mark_removed(engine.ledger, instances)
        removed += len(instances)
    return removed


def _unlink(engine: Engine, instances: Sequence[str]) -> None:
    for instance in instances:
        engine.archive.remove(instance)
    forget_thumbnails(engine.settings.data_dir, instances)


async def run_purge(engine: Engine, stop: asyncio.Event) -> None:
    """Purge once an hour until ``stop`` is set, where the settings ask for it."""
    while engine.settings.retention.purge and not stop.is_set():
        try:
            await purge(engine, actor="retention")
        except (RsoError, OSError) as exc:
            log.warning("purge put off", reason=str(exc))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _HOUR)
