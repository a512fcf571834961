"""The exam: who the patient is, where it stands, and which steps it may take."""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct, field

from rso.core.errors import StateError

__all__ = ["Exam", "ExamStatus", "Origin", "Patient", "Priority", "advance"]


class ExamStatus(StrEnum):
    """Where an exam stands."""

    REQUESTED = "requested"
    RECEIVING = "receiving"
    SETTLED = "settled"
    DELIVERED = "delivered"
    CLOSED = "closed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Closed or cancelled: no step leads on, and what comes of it waits for a person."""
        return self in {ExamStatus.CLOSED, ExamStatus.CANCELLED}


class Priority(StrEnum):
    """How urgent an exam is; the order of the members is the order of work."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"

    @property
    def rank(self) -> int:
        """0 for STAT, 1 for urgent, 2 for routine."""
        return list(Priority).index(self)


class Origin(StrEnum):
    """Whether a person requested the exam or RSO created it from received images."""

    REQUEST = "request"
    IMAGES = "images"


class Patient(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who the patient is, in DICOM's own forms; an empty string means unknown.

    Attributes:
        name: Person Name with carets and groups (``DOE^JANE``), decoded (PS3.5 6.2.1).
        patient_id: The facility's Patient ID (0010,0020).
        issuer_of_patient_id: (0010,0021).
        birth_date: ``YYYYMMDD`` (PS3.5 DA).
        sex: ``M``, ``F`` or ``O``.
    """

    name: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    birth_date: str = ""
    sex: str = ""


class Exam(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One requested or received examination of one patient at one facility.

    Attributes:
        id: UUID7 as text; the ledger's key.
        number: The exam number, 10 symbols without dashes.
        facility: Facility code.
        accession_number: The facility's own order number, typed or received for this exam;
            empty when there is none (the exam number serves as accession then).
        expected_instances: Known from a manifest or a person's word; ``None`` when unknown.
        flags: Short words for people, such as ``one demographic``.
    """

    id: str
    number: str
    facility: str
    origin: Origin
    status: ExamStatus
    patient: Patient
    created_at: datetime
    accession_number: str = ""
    modality: str = ""
    body_part: str = ""
    priority: Priority = Priority.ROUTINE
    expected_instances: int | None = None
    last_instance_at: datetime | None = None
    flags: tuple[str, ...] = field(default=())


_STEPS: dict[ExamStatus, frozenset[ExamStatus]] = {
    ExamStatus.REQUESTED: frozenset({ExamStatus.RECEIVING, ExamStatus.CANCELLED}),
    ExamStatus.RECEIVING: frozenset({ExamStatus.SETTLED, ExamStatus.CANCELLED}),
    # Late instances take a settled or delivered exam back to receiving.
    ExamStatus.SETTLED: frozenset(
        {ExamStatus.RECEIVING, ExamStatus.DELIVERED, ExamStatus.CLOSED, ExamStatus.CANCELLED}
    ),
    ExamStatus.DELIVERED: frozenset({ExamStatus.RECEIVING, ExamStatus.CLOSED}),
    ExamStatus.CLOSED: frozenset(),
    ExamStatus.CANCELLED: frozenset(),
}


def advance(status: ExamStatus, to: ExamStatus) -> ExamStatus:
    """Return ``to`` if an exam may go there from ``status``.

    Raises:
        StateError: The step is not allowed.
    """
    if to is status or to in _STEPS[status]:
        return to
    raise StateError(f"an exam that is {status} cannot become {to}")
