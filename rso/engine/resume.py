"""A Study that was stopped goes on, once no question about its identity is open any more."""

from rso.core.exam import ExamStatus
from rso.engine.context import Engine
from rso.engine.matcher import link_study
from rso.engine.router import route_study
from rso.engine.settle import conclude
from rso.ledger import Ledger
from rso.ledger.deliveries import resume_items
from rso.ledger.exams import OPEN_STATUSES, count_instances, exam_by_id, now
from rso.ledger.holds import question_open

__all__ = ["resume_study"]


async def resume_study(engine: Engine, facility: str, study_instance_uid: str) -> None:
    """Route a stopped Study again, unless a hold asks still whose it is.

    Close the hold that was decided on before. What came meanwhile takes its exam back to
    receiving, as late images do.
    """
    ledger = engine.ledger
    if await question_open(ledger, facility, study_instance_uid):
        return
    rows = await ledger.fetch(
        "SELECT id, exam FROM study WHERE facility = ? AND study_instance_uid = ?"
        " AND state = 'stopped' AND exam IS NOT NULL ORDER BY exam, id",
        facility,
        study_instance_uid,
    )
    for row in rows:
        exam = await exam_by_id(ledger, row["exam"], lock=True)
        await ledger.execute(
            "UPDATE study SET state = 'matched', updated_at = ? WHERE id = ?", now(), row["id"]
        )
        goes_on = await resume_items(ledger, study=row["id"])
        if exam is None or exam.status is ExamStatus.CANCELLED:
            continue
        if exam.status not in OPEN_STATUSES:
            await count_instances(ledger, exam.id)
            await route_study(engine, exam, row["id"])
        elif goes_on or await _has_new(ledger, row["id"]):
            await link_study(engine, exam, row["id"])
        else:
            await conclude(engine, [exam.id])
    engine.work.set()


async def _has_new(ledger: Ledger, study_id: str) -> bool:
    """Whether something of it was never on its way."""
    rows = await ledger.fetch(
        "SELECT i.id FROM instance i LEFT JOIN delivery_item d ON d.instance = i.id"
        " WHERE i.study = ? AND NOT i.conflict AND i.purged_at IS NULL AND d.id IS NULL LIMIT 1",
        study_id,
    )
    return bool(rows)
