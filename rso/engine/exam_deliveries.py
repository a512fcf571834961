"""What a person does with one exam's delivery to one destination, audited."""

from rso.core.errors import ExamError, RoutingError
from rso.core.exam import Exam, ExamStatus
from rso.engine.context import Engine
from rso.engine.delivery_control import resend_delivery, retry_delivery, stop_delivery
from rso.engine.exams import note_exam
from rso.ledger.deliveries import deliveries_of
from rso.ledger.standing import STOPPED_BY

__all__ = ["ACTIONS", "act_on_delivery", "retry_deliveries"]

ACTIONS = ("retry", "stop", "resend")


async def act_on_delivery(
    engine: Engine, exam: Exam, destination: str, action: str, *, actor: str
) -> None:
    """Retry what was stopped, stop what waits, or send everything again.

    Raises:
        ExamError: The exam is not sent to this destination.
        RoutingError: The exam is cancelled.
    """
    rows = [d for d in await deliveries_of(engine.ledger, exam.id)
            if d["destination"] == destination]  # fmt: skip
    if not rows or action not in ACTIONS:
        raise ExamError("this exam has no such delivery")
    if exam.status is ExamStatus.CANCELLED and action != "stop":
        raise RoutingError("the exam is cancelled: nothing more is sent of it")
    delivery = rows[0]["id"]
    async with engine.ledger.transaction():
        if action == "retry":
            await retry_delivery(engine, delivery)
        elif action == "resend":
            await resend_delivery(engine, delivery)
        else:
            await stop_delivery(engine, delivery, reason=f"{STOPPED_BY}{actor}")
        words = {"retry": "delivery tried again", "resend": "delivery sent again"}
        await note_exam(
            engine.ledger, exam, actor, words.get(action, "delivery stopped"),
            destination=destination,
        )  # fmt: skip


async def retry_deliveries(engine: Engine, exam: Exam, *, actor: str) -> None:
    """Retry what was stopped, on the way to every destination."""
    for row in await deliveries_of(engine.ledger, exam.id):
        await act_on_delivery(engine, exam, row["destination"], "retry", actor=actor)
