"""Instances that came again and are kept again: of a file that is gone, or of what was rejected."""

import asyncio

import structlog

from rso.engine.arrivals import Return
from rso.engine.context import Engine
from rso.engine.matcher import hold_late
from rso.engine.thumbnails import forget_thumbnails
from rso.ledger.deliveries import lock_deliveries
from rso.ledger.exams import now
from rso.ledger.leases import retry_local

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
    study = home if home and rejected else again.study
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
    if again.rejected and not again.conflict and not rejected and rows[0]["exam"]:
        # It was late, and a person said no: not even to an open exam does it go by itself.
        await hold_late(ledger, study)
        return ""
    return study
