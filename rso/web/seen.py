"""Noting who sees an exam or a hold: one call of every handler that shows one."""

from typing import Any

from litestar import Request

from rso.core.exam import Exam
from rso.engine.audit_sightings import Sightings
from rso.ledger.exams import exam_by_id, exam_by_number
from rso.ledger.holds import HoldRow
from rso.web.auth import Identity, engine_of
from rso.web.client import is_background

__all__ = ["LOOKERS", "exam_seen", "hold_seen"]

# Who is handed images and documents: an auditor reads what is said of an exam, and the audit.
LOOKERS = ("customer", "technician", "coordinator")

Ask = Request[Any, Any, Any]


async def exam_seen(
    request: Ask, me: Identity, exam: Exam, view: str, *, part: bool = False
) -> None:
    """Note that somebody sees an exam; the worksheet, which leaves on paper, by itself.

    ``part`` is what an open page asks for: its state, its pictures.
    """
    sightings: Sightings = request.app.state.sightings
    action = "worksheet opened" if view == "worksheet" else "exam opened"
    key = (me.person.email, action, exam.number)
    if sightings.is_due(*key, refresh=part or is_background(request)):
        await sightings.note(*key, facility=exam.facility, exam=exam.number, view=view)


async def hold_seen(
    request: Ask, me: Identity, hold: HoldRow, view: str, *, part: bool = False
) -> None:
    """Note that somebody sees a hold, with the exam it joined or the first that it might be."""
    sightings: Sightings = request.app.state.sightings
    key = (me.person.email, "hold opened", hold.id)
    if not sightings.is_due(*key, refresh=part or is_background(request)):
        return
    ledger = engine_of(request).ledger
    named = [hold.evidence.get("exam_number", ""), *hold.evidence.get("suggestions", []),
             *hold.evidence.get("considered", [])]  # fmt: skip
    number = next((str(name) for name in named if name), "")
    if hold.exam:
        exam = await exam_by_id(ledger, hold.exam)
    else:
        exam = await exam_by_number(ledger, number, facilities=[hold.facility])
    await sightings.note(
        *key, facility=hold.facility, exam=exam.number if exam else "", view=view, hold=hold.id
    )
