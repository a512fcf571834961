"""What the matching table works on: the Study, its candidates, how they compare, the decision."""

from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256

import msgspec
from msgspec import Struct, structs

from rso.core.exam import Exam, Patient
from rso.core.names import (
    Likeness,
    compare_birth_dates,
    compare_names,
    compare_sexes,
    is_day_month_swap,
    parse_birth_date,
    read_name,
)
from rso.core.transport import Kind

__all__ = [
    "Action",
    "Candidate",
    "Decision",
    "IncomingStudy",
    "LinkedStudy",
    "Verdict",
    "compare",
    "compare_patient",
    "identity_key",
]


class Action(StrEnum):
    """What happens to a Study."""

    AUTO = "auto"
    CREATE = "create"
    HOLD = "hold"


class IncomingStudy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A Study as it arrived, under one identity."""

    study_instance_uid: str
    patient: Patient
    kind: Kind
    undecodable: bool = False
    accession_number: str = ""
    modality: str = ""
    body_part: str = ""
    study_date: str = ""
    bound_exam_number: str = ""


class LinkedStudy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A Study that an exam has already, with the identity it came with."""

    study_instance_uid: str
    patient: Patient
    accession_number: str = ""


class Candidate(Struct, frozen=True, kw_only=True):
    """An exam of the facility that might be meant, and what it has already."""

    exam: Exam
    open: bool
    linked: tuple[LinkedStudy, ...] = ()


class Verdict(Struct, frozen=True, kw_only=True):
    """How two identities compare, field by field."""

    name: Likeness
    birth_date: Likeness
    sex: Likeness
    day_month_swapped: bool = False

    @property
    def differs(self) -> bool:
        """Whether any field disagrees."""
        return Likeness.DIFF in {self.name, self.birth_date, self.sex}

    @property
    def needs_second_person(self) -> bool:
        """Name and birth date both disagree: one person's word is not enough."""
        return self.name is Likeness.DIFF and self.birth_date is Likeness.DIFF

    @property
    def sex_fits(self) -> bool:
        """Equal, or not known on either side."""
        return self.sex is not Likeness.DIFF


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the table says, with the evidence it was said on.

    Attributes:
        row: The row of the table.
        reason: A short code for people and programs.
        explanation: The row in plain words, without patient data.
        alarm: A compared field disagrees: somebody should look soon.
        stop_study: What is already linked of this Study must not be routed further.
        suggestions: Exam numbers a person should look at first, best first.
        considered: Exam numbers of all candidates.
    """

    action: Action
    row: int
    reason: str
    explanation: str
    exam_number: str = ""
    name: Likeness | None = None
    birth_date: Likeness | None = None
    sex: Likeness | None = None
    flags: tuple[str, ...] = ()
    alarm: bool = False
    security_alert: bool = False
    stop_study: bool = False
    suggestions: tuple[str, ...] = ()
    considered: tuple[str, ...] = ()


def identity_key(study: IncomingStudy) -> str:
    """A digest of everything about a Study's identity that can change a decision."""
    patient = study.patient
    parts = (
        [structs.asdict(n) if n else None for n in read_name(patient.name)],
        patient.patient_id.strip(),
        patient.issuer_of_patient_id.strip(),
        parse_birth_date(patient.birth_date),
        patient.sex.strip().upper(),
        study.accession_number.strip(),
        study.kind,
        study.bound_exam_number,
        study.undecodable,
    )
    return sha256(msgspec.json.encode(parts)).hexdigest()


def compare(study: IncomingStudy, exam: Exam, linked: Sequence[LinkedStudy] = ()) -> Verdict:
    """Compare a Study's header with an exam; what the exam leaves blank, its images may say."""
    name, birth_date, sex = exam.patient.name, exam.patient.birth_date, exam.patient.sex
    for known in linked:
        if not any(read_name(name)):
            name = known.patient.name
        birth_date = parse_birth_date(birth_date) or known.patient.birth_date
        sex = sex if sex.strip().upper() in {"M", "F"} else known.patient.sex
    return compare_patient(study, Patient(name=name, birth_date=birth_date, sex=sex))


def compare_patient(study: IncomingStudy, known: Patient) -> Verdict:
    """Compare a Study's header with one identity."""
    theirs = study.patient
    birth_date = compare_birth_dates(theirs.birth_date, known.birth_date)
    name = Likeness.EMPTY
    if not study.undecodable:
        name = compare_names(theirs.name, known.name, same_birth_date=birth_date is Likeness.EQ)
    return Verdict(
        name=name,
        birth_date=birth_date,
        sex=compare_sexes(theirs.sex, known.sex),
        day_month_swapped=is_day_month_swap(theirs.birth_date, known.birth_date),
    )
