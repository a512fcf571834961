"""Settling: no timer can know that an exam is whole, so quiet only gates the claim n of n."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import structlog

from rso.core.exam import ExamStatus
from rso.engine.context import Engine
from rso.engine.outbox import emit
from rso.ledger.exams import lock_exams, now, set_status

__all__ = ["conclude", "run_settle", "settle_exams"]

log = structlog.get_logger(__name__)

_TURN_SECONDS = 0.5
_RECEIVING = (
    "SELECT e.id, e.number, e.instances, e.expected_instances, e.last_instance_at, f.settings"
    " FROM exam e LEFT JOIN facility f ON f.code = e.facility WHERE e.status = 'receiving'"
)


async def run_settle(engine: Engine, stop: asyncio.Event) -> None:
    """Settle exams as they fall quiet, until ``stop`` is set."""
    while not stop.is_set():
        await settle_exams(engine)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _TURN_SECONDS)


async def settle_exams(engine: Engine) -> int:
    """Settle what has been quiet long enough, or holds all that was announced."""
    default = engine.settings.intake.settle_seconds
    ledger = engine.ledger
    settled = 0
    for row in await ledger.fetch(_RECEIVING):
        if not _is_due(row, default):
            continue
        async with ledger.transaction():
            await lock_exams(ledger, [row["id"]])
            again = await ledger.fetch(f"{_RECEIVING} AND e.id = ?", row["id"])
            if not again or not _is_due(again[0], default):
                continue  # it was cancelled meanwhile, or more came
            await set_status(ledger, row["id"], ExamStatus.SETTLED)
            await emit(ledger, "exam_settled", exam=row["id"])
            await conclude(engine, [row["id"]])
        settled += 1
        log.info("exam settled", exam=row["number"], instances=again[0]["instances"])
    return settled


def _is_due(row: dict[str, Any], default: float) -> bool:
    expected = row["expected_instances"] or 0
    if expected and row["instances"] == expected:
        return True
    if row["instances"] < expected:
        # A known count is waited for, but not for ever: a person sees what is missing.
        default = max(default, 600.0)
    # Where more came than was said, nobody knows how many more there are: quiet decides again.
    settings = msgspec.json.decode(row["settings"]) if row["settings"] else {}
    seconds = settings.get("settle_seconds") or default
    last = row["last_instance_at"]
    return last is None or now() - last > timedelta(seconds=float(seconds))


async def conclude(engine: Engine, exam_ids: Sequence[str]) -> None:
    """Declare settled exams delivered once every destination has n of n.

    Not while a person is asked about one of their Studies, or one is stopped by such a question.
    """
    ledger = engine.ledger
    # Two destinations that are done at once each see the other so: one waits for the other's end.
    await lock_exams(ledger, exam_ids)
    for exam_id in exam_ids:
        rows = await ledger.fetch(
            "SELECT count(*) AS n, sum(CASE WHEN state = 'delivered' THEN 1 ELSE 0 END) AS done"
            " FROM delivery WHERE exam = ? AND total > 0",
            exam_id,
        )
        if not rows[0]["n"] or rows[0]["n"] != rows[0]["done"]:
            continue
        changed = await ledger.execute(
            "UPDATE exam SET status = ?, delivered_at = ?, updated_at = ?"
            " WHERE id = ? AND status = ? AND NOT EXISTS (SELECT 1 FROM hold h JOIN study s"
            " ON s.id = h.study WHERE s.exam = exam.id AND h.state = 'open' AND h.kind = 'study')"
            " AND NOT EXISTS (SELECT 1 FROM study s WHERE s.exam = exam.id"
            " AND s.state = 'stopped')",
            ExamStatus.DELIVERED.value,
            now(),
            now(),
            exam_id,
            ExamStatus.SETTLED.value,
        )
        if changed:
            await emit(ledger, "exam_delivered", exam=exam_id)
