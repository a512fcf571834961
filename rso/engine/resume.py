"""A Study that was stopped, or waited in part, goes on once the question is answered."""

from collections.abc import Mapping
from typing import Any

from rso.engine.context import Engine
from rso.engine.matcher import hold_late, link_study
from rso.engine.router import route_study
from rso.engine.settle import conclude
from rso.ledger.deliveries import resume_items
from rso.ledger.exams import OPEN_STATUSES, exam_by_id, now
from rso.ledger.holds import question_open
from rso.ledger.standing import is_unsent, never_sent

__all__ = ["resume_study", "send_rest"]


async def resume_study(engine: Engine, facility: str, study_instance_uid: str) -> None:
    """Route a stopped Study again, unless a hold asks still whose it is.

    Close the hold that was decided on before. What came meanwhile takes its exam back to
    receiving; where that has ended, it is late.
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
        if exam is None:
            continue
        if exam.status not in OPEN_STATUSES:
            if late := await never_sent(ledger, row["id"]):
                await hold_late(ledger, row["id"], late)
        elif goes_on or await is_unsent(ledger, exam.id, row["id"]):
            await link_study(engine, exam, row["id"])
        else:
            await conclude(engine, [exam.id])
    engine.work.set()


async def send_rest(engine: Engine, study: Mapping[str, Any]) -> None:
    """What waited for the answer about late images of its Study goes on without these."""
    exam = await exam_by_id(engine.ledger, study["exam"], lock=True)
    if exam is None or exam.status not in OPEN_STATUSES:
        return
    if await is_unsent(engine.ledger, exam.id, study["id"]):
        await route_study(engine, exam, study["id"])
