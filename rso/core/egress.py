"""Whose identity an instance leaves with (the egress modes of a destination)."""

from msgspec import structs

from rso.core.coercion import Coercion
from rso.core.errors import ExamError
from rso.core.exam import Exam, Origin
from rso.core.header import Header
from rso.core.number import parse_number

__all__ = ["EGRESS_MODES", "coercion_for", "default_egress"]

EGRESS_MODES = ("passthrough", "qualify", "restore")


def default_egress(facilities: int) -> str:
    """The mode of a destination that names none, by how many facilities it serves.

    Patient IDs of several facilities collide, so those are qualified with their issuer.
    """
    return "passthrough" if facilities <= 1 else "qualify"


def coercion_for(
    exam: Exam, issuer: str, header: Header, mode: str, *, correct: bool
) -> Coercion | None:
    """What to replace in an instance's header on its way out; ``None`` leaves it as received.

    Args:
        exam: The exam it is matched to.
        issuer: The facility's Issuer of Patient ID, or empty.
        header: The instance's own header.
        mode: The destination's egress mode.
        correct: The instance was released as a mismatch under the exam's identity: it leaves
            with that identity whatever the mode.
    """
    wanted = Coercion(reason="CORRECT" if correct else "COERCE")
    if correct:
        wanted = _corrected(wanted, exam)
    if mode == "restore":
        wanted = _restored(wanted, exam, issuer, header)
    if mode == "qualify" and issuer:
        wanted = structs.replace(wanted, issuer_of_patient_id=issuer)
    return _needed(wanted, header)


def _corrected(wanted: Coercion, exam: Exam) -> Coercion:
    patient = exam.patient
    return structs.replace(
        wanted,
        patient_name=patient.name or None,
        patient_id=patient.patient_id or exam.number,
        birth_date=patient.birth_date or None,
        sex=patient.sex or None,
    )


def _restored(wanted: Coercion, exam: Exam, issuer: str, header: Header) -> Coercion:
    own = exam.patient.patient_id
    if own and not _is_number(own, exam.number):
        wanted = structs.replace(wanted, patient_id=own)
        issuer = exam.patient.issuer_of_patient_id or issuer
    if issuer:
        wanted = structs.replace(wanted, issuer_of_patient_id=issuer)
    keeps_own = exam.origin is Origin.IMAGES and bool(header.accession_number)
    return wanted if keeps_own else structs.replace(wanted, accession_number=exam.number)


def _is_number(text: str, number: str) -> bool:
    try:
        return parse_number(text) == number
    except ExamError:
        return False


def _needed(wanted: Coercion, header: Header) -> Coercion | None:
    """Leave out what the header says already."""
    patient = header.patient
    has = {
        "patient_name": patient.name,
        "patient_id": patient.patient_id,
        "issuer_of_patient_id": patient.issuer_of_patient_id,
        "birth_date": patient.birth_date,
        "sex": patient.sex,
        "accession_number": header.accession_number,
    }
    same = {name: None for name, value in has.items() if getattr(wanted, name) == value}
    needed = structs.replace(wanted, **same)
    return needed if any(getattr(needed, name) is not None for name in has) else None
