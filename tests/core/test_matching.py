"""The matching table, row by row, and its totality."""

import itertools
from datetime import UTC, datetime

import pytest
from msgspec import structs

from rso.core.exam import Exam, ExamStatus, Origin, Patient
from rso.core.matching import (
    Action,
    Candidate,
    IncomingStudy,
    LinkedStudy,
    decide,
    identity_key,
)
from rso.core.number import make_number
from rso.core.transport import Kind

JANE = Patient(name="DOE^JANE", patient_id="P1", birth_date="19700131", sex="F")
NUMBER = make_number()
EXAM = Exam(
    id="1",
    number=NUMBER,
    facility="NORTH",
    origin=Origin.REQUEST,
    status=ExamStatus.REQUESTED,
    patient=JANE,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    accession_number="A1",
)
TECHNICIAN, INTEGRATION = Kind.TECHNICIAN, Kind.INTEGRATION


def study(kind: Kind = TECHNICIAN, *, accession: str = "", **patient: str) -> IncomingStudy:
    """A Study of Jane's, but for what is said."""
    return IncomingStudy(
        study_instance_uid="1.2.3",
        patient=structs.replace(JANE, **patient),
        kind=kind,
        accession_number=accession,
    )


def candidate(
    exam: Exam = EXAM, *, is_open: bool = True, linked: tuple[LinkedStudy, ...] = ()
) -> Candidate:
    """An exam as a candidate."""
    return Candidate(exam=exam, open=is_open, linked=linked)


def other(**changes: object) -> Exam:
    """Another exam of the facility's."""
    return structs.replace(EXAM, id="2", number=make_number(), accession_number="", **changes)


LINKED = LinkedStudy(study_instance_uid="1.2.3", patient=JANE)
TAKEN = (structs.replace(LINKED, study_instance_uid="9.9"),)
ROWS = [
    (1, "auto", study(), [candidate(linked=(LINKED,))]),
    (1, "auto", study(patient_id=NUMBER), [candidate(linked=(LINKED,))]),
    (1, "hold", study(), [candidate(linked=(LINKED,), is_open=False)]),
    (2, "hold", study(name="ROE^JANE"), [candidate(linked=(LINKED,))]),
    (2, "hold", study(patient_id="P2"), [candidate(linked=(LINKED,))]),
    (3, "hold", study(patient_id=NUMBER), [candidate(is_open=False)]),
    (4, "auto", study(patient_id=NUMBER), [candidate()]),
    (4, "auto", study(patient_id=NUMBER, name="JANE^DOE", sex=""), [candidate()]),
    (5, "auto", study(patient_id=NUMBER, birth_date=""), [candidate()]),
    (6, "auto", study(patient_id=NUMBER, name=""), [candidate()]),
    (7, "hold", study(patient_id=NUMBER, name="", birth_date=""), [candidate()]),
    (8, "hold", study(patient_id=NUMBER, name="DOE^JOAN"), [candidate()]),
    (8, "hold", study(patient_id=NUMBER, sex="M"), [candidate()]),
    (8, "hold", study(patient_id=NUMBER, birth_date="", name="JANE^DOE"), [candidate()]),
    (9, "hold", study(patient_id=make_number()), [candidate()]),
    (10, "auto", study(patient_id="X", accession="A1"), [candidate()]),
    (10, "auto", study(patient_id="X", accession=NUMBER), [candidate()]),
    (11, "hold", study(patient_id="X", accession="A1", birth_date=""), [candidate()]),
    (12, "auto", study(), [candidate()]),
    (12, "auto", study(INTEGRATION), [candidate(linked=TAKEN)]),
    (13, "auto", study(INTEGRATION, birth_date=""), [candidate()]),
    (14, "hold", study(), [candidate(), candidate(other())]),
    (15, "create", study(INTEGRATION), [candidate(is_open=False)]),
    (15, "hold", study(TECHNICIAN), [candidate(is_open=False)]),
    (16, "hold", study(INTEGRATION, birth_date="19700201"), [candidate()]),
    (16, "hold", study(TECHNICIAN, birth_date=""), [candidate()]),
    (17, "hold", study(INTEGRATION, patient_id="P9"), [candidate()]),
    (18, "create", study(INTEGRATION), []),
    (18, "create", study(INTEGRATION, patient_id=make_number()), []),
    (19, "hold", study(TECHNICIAN), []),
    (19, "hold", study(INTEGRATION, patient_id=""), []),
    (19, "hold", study(INTEGRATION, name=""), []),
]


@pytest.mark.parametrize(("row", "action", "incoming", "candidates"), ROWS)
def test_row(row: int, action: str, incoming: IncomingStudy, candidates: list[Candidate]) -> None:
    """Each row decides what it says."""
    decision = decide(incoming, candidates)
    assert (decision.row, decision.action.value) == (row, action)
    assert (
        decision.alarm
        or decision.action is not Action.HOLD
        or row not in {2, 8, 11, 16}
        or ("differs" not in {decision.name, decision.birth_date, decision.sex})
    )


def test_every_combination_ends_in_a_row_and_no_difference_matches() -> None:
    """Total over all evidence; a field that differs never matches by itself."""
    names = ["DOE^JANE", "JANE^DOE", "DOE^JOAN", ""]
    dates = ["19700131", "19700201", ""]
    sexes = ["F", "M", ""]
    ids = ["P1", "P2", NUMBER, make_number(), ""]
    accessions = ["", "A1", "A2"]
    homes = [[], [candidate()], [candidate(is_open=False)], [candidate(linked=(LINKED,))],
             [candidate(linked=TAKEN)], [candidate(), candidate(other())]]  # fmt: skip
    seen = set()
    for kind, name, date, sex, patient_id, accession, home in itertools.product(
        Kind, names, dates, sexes, ids, accessions, homes
    ):
        incoming = study(
            kind, accession=accession, name=name, birth_date=date, sex=sex, patient_id=patient_id
        )
        decision = decide(incoming, home)
        seen.add(decision.row)
        if decision.action is Action.AUTO:
            assert name != "DOE^JOAN"
            assert date != "19700201"
            assert sex != "M"
    assert seen == set(range(1, 20))


def test_facility_may_opt_in_to_numbers_without_demographics() -> None:
    """Row 7 matches only where the facility allows it."""
    incoming = study(patient_id=NUMBER, name="", birth_date="")
    assert decide(incoming, [candidate()], allow_empty_demographics=True).action is Action.AUTO


def test_another_facilitys_number_is_an_alert_that_reveals_nothing() -> None:
    """Row 9 with a foreign number names no exam."""
    decision = decide(study(patient_id=make_number()), [], foreign_number=True)
    assert decision.security_alert
    assert not decision.suggestions
    assert not decision.considered


def test_identity_key_groups_spelling_but_not_people() -> None:
    """Case does not split a Study, another birth date does."""
    assert identity_key(study()) == identity_key(study(name="doe^jane"))
    assert identity_key(study()) != identity_key(study(birth_date="19700201"))
    assert identity_key(study()) != identity_key(study(accession="A9"))
