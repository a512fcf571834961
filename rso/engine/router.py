"""From a matched exam to its destinations: deliveries are made, stopped and made again.

The route is decided once, when nothing of the exam is on its way yet.
"""

from collections.abc import Sequence

import msgspec
import structlog
from msgspec import structs

from rso.core.errors import PluginError
from rso.core.exam import Exam, ExamStatus
from rso.core.routing import Attachment, Conditions, Destination, Route
from rso.engine.context import Engine
from rso.engine.outbox import emit
from rso.engine.settle import conclude
from rso.ledger import Ledger
from rso.ledger.deliveries import IN_QUESTION, add_items, ensure_delivery, stop_items
from rso.ledger.exams import exam_by_id, lock_exams, now
from rso.ledger.holds import close_hold, find_holds, hold_by_id, open_hold
from rso.ledger.rejected import REJECTED
from rso.ledger.standing import Standing, never_queued, standing_deliveries
from rso.ledger.studies import lock_study

__all__ = [
    "NO_DESTINATION",
    "attachments_of",
    "find_route",
    "retry_routing",
    "route_study",
    "stop_study",
]

log = structlog.get_logger(__name__)

NO_DESTINATION = "no destination"


async def attachments_of(ledger: Ledger, facility: str) -> list[Attachment]:
    """The radiologists attached to a facility, with their destinations."""
    rows = await ledger.fetch(
        "SELECT a.radiologist, a.conditions, d.code, d.sender, d.egress, d.options"
        " FROM attachment a LEFT JOIN destination d ON d.radiologist = a.radiologist"
        " WHERE a.facility = ? ORDER BY a.id, d.code",
        facility,
    )
    found: dict[tuple[str, str], list[Destination]] = {}
    for row in rows:
        destinations = found.setdefault((row["radiologist"], row["conditions"]), [])
        if row["code"]:
            destinations.append(
                Destination(
                    code=row["code"],
                    radiologist=row["radiologist"],
                    sender=row["sender"],
                    egress=row["egress"],
                    options=msgspec.json.decode(row["options"]),
                )
            )
    return [
        Attachment(
            facility=facility,
            radiologist=radiologist,
            conditions=msgspec.json.decode(conditions, type=Conditions),
            destinations=tuple(destinations),
        )
        for (radiologist, conditions), destinations in found.items()
    ]


async def find_route(engine: Engine, exam: Exam) -> Route | None:
    """Where the exam goes now; ``None`` when nothing fits, or a plugin failed to say."""
    attachments = await attachments_of(engine.ledger, exam.facility)
    try:
        route = engine.plugins.decide("rso_route_exam", Route, exam=exam, attachments=attachments)
    except PluginError as exc:
        log.error("exam is not routed", exam=exam.number, reason=str(exc))
        return None
    return route if route and route.destinations else None


async def route_study(
    engine: Engine, exam: Exam, study_id: str, instances: Sequence[str] | None = None
) -> bool:
    """Queue a matched Study's instances for the exam's destinations.

    Later instances go where the exam is on its way already, whatever the route would be by now;
    it is asked only where there is no such way, and what it names gets all of the exam. So at
    least one destination has the whole exam when all of them have n of n.

    Args:
        engine: The engine.
        exam: The exam, as it stands.
        study_id: A row of ``study``.
        instances: Keys of those that just arrived; ``None`` means all that were never queued.

    Returns:
        False when no destination fits; the Study is then held, alarmed.
    """
    ledger = engine.ledger
    studies = await ledger.fetch("SELECT modality, state FROM study WHERE id = ?", study_id)
    if not studies or studies[0]["state"] != "matched":
        return True
    if not exam.modality:
        exam = structs.replace(exam, modality=studies[0]["modality"])
    await lock_exams(ledger, [exam.id])
    standing = await standing_deliveries(ledger, exam.id)
    for way in standing:
        await _follow(ledger, exam, way, study_id, instances)
    if all(way.stopped for way in standing):
        route = await find_route(engine, exam)
        if route is None:
            await _hold(ledger, exam, study_id)
            return False
        stopped = {way.destination for way in standing}
        for destination in route.destinations:
            if destination.code not in stopped:
                await _begin(ledger, exam, destination.code)
    engine.work.set()
    return True


async def _follow(
    ledger: Ledger, exam: Exam, way: Standing, study_id: str, instances: Sequence[str] | None
) -> None:
    """Let a Study's instances follow the exam's others; where a person stopped those, it waits.

    So the destination's n of n is the exam's, and a retry sends all of it.
    """
    if instances is None:
        await _requeue_cancelled(ledger, way.delivery, study_id)
        instances = await never_queued(ledger, way.delivery, study=study_id)
    rank = exam.priority.rank
    await add_items(ledger, way.delivery, way.destination, instances, rank)
    if way.stopped:
        await stop_items(ledger, delivery=way.delivery, reason=way.stopped)


async def _begin(ledger: Ledger, exam: Exam, code: str) -> None:
    """A new destination gets all of the exam, whatever went elsewhere before."""
    delivery = await ensure_delivery(ledger, exam.id, code, exam.priority.rank)
    studies = await ledger.fetch(
        "SELECT id FROM study WHERE exam = ? AND state = 'matched'", exam.id
    )
    for study in studies:
        await _requeue_cancelled(ledger, delivery, study["id"])
    queue = await never_queued(ledger, delivery, exam=exam.id)
    await add_items(ledger, delivery, code, queue, exam.priority.rank)


async def _hold(ledger: Ledger, exam: Exam, study_id: str) -> None:
    hold_id = await open_hold(
        ledger,
        kind="study",
        facility=exam.facility,
        study=study_id,
        reason=NO_DESTINATION,
        alarm=True,
        evidence={"exam_number": exam.number},
    )
    if hold_id:
        await emit(
            ledger,
            "study_held",
            exam=exam.id,
            dedupe=f"study_held:{hold_id}",
            facts={"hold": hold_id, "reason": NO_DESTINATION},
        )


async def _requeue_cancelled(ledger: Ledger, delivery: str, study_id: str) -> None:
    """A Study that was recalled and is released to the same exam again is sent again.

    Not what was rejected meanwhile, or gave way to other content under the same SOP Instance UID.
    """
    await ledger.execute(
        "UPDATE delivery_item SET state = 'pending', attempts = 0, next_at = ?"  # noqa: S608
        " WHERE delivery = ? AND state = 'cancelled'"
        " AND instance IN (SELECT i.id FROM instance i WHERE i.study = ? AND i.purged_at IS NULL"
        f" AND NOT i.conflict AND NOT {REJECTED.format('i')})",
        now(),
        delivery,
        study_id,
    )


async def retry_routing(engine: Engine) -> int:
    """Route what had no destination, after facilities or radiologists changed.

    Nothing of a cancelled exam is routed, and its holds end.
    """
    routed = 0
    for hold in await find_holds(engine.ledger, reason=NO_DESTINATION):
        async with engine.ledger.transaction():
            current = await hold_by_id(engine.ledger, hold.id, lock=True)
            if current is None or current.state != "open":
                continue  # a person decided meanwhile
            study = await lock_study(engine.ledger, hold.study)
            exam = await exam_by_id(engine.ledger, study["exam"], lock=True)
            if exam is None or exam.status is ExamStatus.CLOSED:
                continue  # a closed exam's images wait for a person
            if exam.status is ExamStatus.CANCELLED:
                await _close(engine.ledger, hold.id, exam, "rejected", "the exam was cancelled")
            elif await route_study(engine, exam, hold.study):
                await _close(engine.ledger, hold.id, exam, "released", "a destination fits now")
                # What is of it may have been acknowledged before the hold was closed.
                await conclude(engine, [exam.id])
                routed += 1
    return routed


async def _close(ledger: Ledger, hold_id: str, exam: Exam, state: str, why: str) -> None:
    await close_hold(ledger, hold_id, state=state, actor="routing", resolution=why, exam=exam.id)


async def stop_study(
    engine: Engine, facility: str, study_instance_uid: str, *, but: str = ""
) -> None:
    """Stop routing whatever is linked of a Study: its identity is in question."""
    ledger = engine.ledger
    rows = await ledger.fetch(
        "SELECT id FROM study WHERE facility = ? AND study_instance_uid = ?"
        " AND state = 'matched' AND exam IS NOT NULL",
        facility,
        study_instance_uid,
    )
    for row in rows:
        if row["id"] == but:
            continue
        await ledger.execute(
            "UPDATE study SET state = 'stopped', updated_at = ? WHERE id = ?", now(), row["id"]
        )
        await stop_items(ledger, study=row["id"], reason=IN_QUESTION)
