"""Instances that came again and are kept again: of a file that is gone, or of what was rejected."""

import asyncio

import structlog

from rso.engine.arrivals import Return
from rso.engine.context import Engine
from rso.engine.matcher import hold_late
from rso.engine.thumbnails import forget_thumbnails
from rso.ledger import Ledger
from rso.ledger.deliveries import lock_deliveries
from rso.ledger.exams import now
from rso.ledger.leases import retry_local
from rso.ledger.rejected import LATE

__all__ = ["take_back"]

log = structlog.get_logger(__name__)


async def take_back(engine: Engine, again: Return, home: str) -> str:
    """Let an instance be there again; what was delivered of it stays delivered.

    Its holds, Studies and exams are locked already.

    Args:
        engine: The engine.
        again: What came.
        home: The Study that it is said to be of now, where it was rejected.

    Returns:
        The Study to be decided on; empty where nothing is new of it.
    """
    ledger, record = engine.ledger, again.record
    rows = await ledger.fetch("SELECT state, exam FROM study WHERE id = ?", again.study)
    rejected = rows[0]["state"] == "rejected"
    reason = await _rejected_as(ledger, again)
    # Late images stay in the exam's Study, and are asked about there.
    study = home if home and (rejected or reason not in {"", LATE}) else again.study
    items = await ledger.fetch(
        "SELECT DISTINCT delivery FROM delivery_item WHERE instance = ?", again.instance
    )
    await lock_deliveries(ledger, [row["delivery"] for row in items])
    # The new key is the new record's, so that the same record, read again, finds itself.
    if not await ledger.execute(
        "UPDATE instance SET id = ?, study = ?, batch = ?, dataset_offset = ?, received_at = ?,"
        " purged_at = NULL, removed_at = NULL WHERE id = ?",
        record.record_id,
        study,
        record.batch_id,
        record.dataset_offset,
        now(),
        again.instance,
    ):
        return ""  # another copy of it was quicker
    await ledger.execute(
        "UPDATE delivery_item SET instance = ? WHERE instance = ?",
        record.record_id,
        again.instance,
    )
    await ledger.execute(
        "UPDATE hold SET instance = ?, study = ? WHERE instance = ?",
        record.record_id,
        study,
        again.instance,
    )
    # An interrupted purge may have left the old file, which now no row names.
    await asyncio.to_thread(engine.archive.remove, again.instance)
    if again.lost:  # nothing is new of its Study
        log.warning("a lost file is replaced", sop_instance_uid=record.header.sop_instance_uid)
        await asyncio.to_thread(forget_thumbnails, engine.settings.data_dir, [again.instance])
        await retry_local(ledger, record.record_id)
        engine.work.set()
        return ""
    if reason == LATE and not rejected and rows[0]["exam"]:
        # A person said no: not even to an open exam does it go by itself.
        await hold_late(ledger, study, [record.record_id])
        return ""
    return study


async def _rejected_as(ledger: Ledger, again: Return) -> str:
    """Why an instance was rejected last by itself; empty where its Study says it, or it waits."""
    if not again.rejected or again.conflict:
        return ""
    rows = await ledger.fetch(
        "SELECT reason FROM hold WHERE instance = ? AND state = 'rejected'"
        " ORDER BY resolved_at DESC, id DESC LIMIT 1",
        again.instance,
    )
    return str(rows[0]["reason"]) if rows else ""
