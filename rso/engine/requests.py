"""What is typed into a request beside the patient: one list for form, page, API and worksheet."""

from typing import Any

import msgspec
from msgspec import Struct

from rso.core.exam import Exam
from rso.ledger import Ledger

__all__ = ["FIELDS", "Field", "asked_of", "request_of"]


class Field(Struct, frozen=True, kw_only=True):
    """One field of a request.

    Attributes:
        most: Characters that are kept.
        lines: How high it is; 1 is a single line.
    """

    name: str
    label: str
    most: int = 200
    lines: int = 1


FIELDS = (
    Field(name="laterality", label="Side"),
    Field(name="procedure", label="Procedure"),
    Field(name="study_date", label="Study date"),
    Field(name="indication", label="Indication", most=4000, lines=3),
    Field(name="history", label="History", most=4000, lines=3),
    Field(name="allergies", label="Allergies", most=1000, lines=2),
    Field(name="contrast", label="Contrast medium"),
    Field(name="pregnancy", label="Pregnancy"),
    Field(name="priors", label="Earlier exams", most=2000, lines=2),
    Field(name="priority_reason", label="Reason for STAT", most=1000),
    Field(name="referrer", label="Referring physician"),
    Field(name="callback", label="Callback phone", most=64),
    Field(name="fax", label="Fax", most=64),
)


async def request_of(ledger: Ledger, exam: Exam) -> dict[str, Any]:
    """Everything that was typed for an exam, its notes among it."""
    rows = await ledger.fetch("SELECT request FROM exam WHERE id = ?", exam.id)
    found: dict[str, Any] = msgspec.json.decode(rows[0]["request"] or "{}") if rows else {}
    return found


async def asked_of(ledger: Ledger, exam: Exam) -> list[tuple[str, str]]:
    """Label and text of each field of the request that says something."""
    said = await request_of(ledger, exam)
    return [(field.label, str(said[field.name])) for field in FIELDS if said.get(field.name)]
