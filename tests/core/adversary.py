"""Pairs of different patients that look alike, and honest pairs with the usual noise."""

import random
import string
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import structs

from rso.core.exam import Exam, ExamStatus, Origin, Patient
from rso.core.matching import Candidate, IncomingStudy, LinkedStudy
from rso.core.number import ALPHABET, format_number, make_number
from rso.core.transport import Kind

__all__ = ["honest_pairs", "wrong_edits", "wrong_pairs"]

_FAMILIES = ["Smith", "Müller", "García", "O'Brien", "Nguyễn", "Иванов", "Παπαδόπουλος", "山田", "김",
             "Lee", "van der Berg", "Smith-Jones", "Çelik", "الأحمد", "Johansson", "Kowalski"]  # fmt: skip
_GIVEN = ["Anna", "Anne", "Hanna", "John", "Jon", "José", "Мария", "太郎", "次郎", "민준", "Mary Ann",
          "Jean-Pierre", "Jean", "Ali", "Alia", "Eva", "Ewa", "Robert", "Roberta"]  # fmt: skip
_AT = datetime(2026, 1, 1, tzinfo=UTC)


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1930, 2020)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"


def _another_date(rng: random.Random, day: str) -> str:
    made = _date(rng)
    return made if made != day else "19010101"


def _patient(rng: random.Random) -> Patient:
    return Patient(
        name=f"{rng.choice(_FAMILIES)}^{rng.choice(_GIVEN)}",
        patient_id=f"P{rng.randint(1, 999)}",
        birth_date=_date(rng),
        sex=rng.choice("MF"),
    )


def _exam(rng: random.Random, patient: Patient) -> Exam:
    return Exam(
        id=str(rng.random()), number=make_number(), facility="N", origin=Origin.REQUEST,
        status=ExamStatus.REQUESTED, patient=patient, created_at=_AT,
        accession_number=rng.choice(["", f"A{rng.randint(1, 99)}"]),
    )  # fmt: skip


def _edit(rng: random.Random, text: str) -> str:
    i = rng.randrange(len(text))
    plain = unicodedata.normalize("NFD", text[i])[0].casefold()
    other = rng.choice([c for c in string.ascii_lowercase if c != plain])
    return text[:i] + other + text[i + 1 :]


def _other(rng: random.Random, patient: Patient) -> Patient:
    """Somebody else who resembles the patient; at least one compared field differs."""
    family, _, given = patient.name.partition("^")
    day = patient.birth_date
    swapped = day[:4] + day[6:] + day[4:6]
    kinds = [
        {"name": f"{family}^{_edit(rng, given)}"},  # a twin, one letter apart
        {"name": f"{family}^{given[0]}{rng.choice(string.ascii_lowercase) * 3}"},  # same initial
        {"name": f"{family}^{given[0]}"},
        # Father and son: they share everything but this and the day.
        {"name": f"{patient.name}^^^JR", "birth_date": _another_date(rng, day)},
        {"birth_date": swapped if swapped != day and day[6:] <= "12" else _date(rng)},
        {"sex": "F" if patient.sex == "M" else "M"},
        # One typing error in a family name is what the table lets through; this is another name.
        {"name": f"{rng.choice([f for f in _FAMILIES if f != family])}^{given}"},
        structs.asdict(_patient(rng)),
    ]
    other = structs.replace(patient, **rng.choice(kinds))
    compared = ("name", "birth_date", "sex")
    if all(getattr(other, f).casefold() == getattr(patient, f).casefold() for f in compared):
        return structs.replace(other, birth_date="19010101")
    return other


def _blank(rng: random.Random, patient: Patient, against: Patient) -> Patient:
    """Some fields empty, but never the only one that tells the two apart."""
    for field in ("name", "birth_date", "sex"):
        blanked = structs.replace(patient, **{field: ""})
        left = [f for f in ("name", "birth_date", "sex") if getattr(blanked, f)
                and getattr(blanked, f) != getattr(against, f)]  # fmt: skip
        if left and rng.random() < 0.15:
            patient = blanked
    return patient


def _wrong_number(rng: random.Random, number: str) -> str:
    symbols = list(number)
    for _ in range(rng.choice([1, 2])):
        symbols[rng.randrange(10)] = rng.choice(ALPHABET)
    return "".join(symbols)


def wrong_pairs(count: int, seed: int) -> Iterator[tuple[IncomingStudy, list[Candidate]]]:
    """A Study of one patient, and exams of others only: no automatic match is right."""
    rng = random.Random(seed)
    for _ in range(count):
        patient = _patient(rng)
        other = _other(rng, patient)
        exam = _exam(rng, patient)
        sent = _blank(rng, other, patient)
        # The other patient's images carry this exam's identifiers by mistake or by reuse.
        ids = [exam.number, patient.patient_id, _wrong_number(rng, exam.number), "P0", ""]
        study = IncomingStudy(
            study_instance_uid="1.2",
            patient=structs.replace(sent, patient_id=rng.choice(ids)),
            kind=rng.choice(list(Kind)),
            accession_number=rng.choice(["", exam.accession_number, "A0"]),
            bound_exam_number=exam.number if rng.random() < 0.1 else "",
        )
        linked: tuple[LinkedStudy, ...] = ()
        if rng.random() < 0.4:
            uid = rng.choice(["1.2", "9.9"])
            linked = (LinkedStudy(study_instance_uid=uid, patient=patient),)
        candidates = [Candidate(exam=exam, open=rng.random() < 0.9, linked=linked)]
        if rng.random() < 0.3:
            candidates.append(
                Candidate(exam=_exam(rng, structs.replace(patient, name="Else^Who")), open=True)
            )
        yield study, candidates


def _parts(rng: random.Random, exam: Exam, patient: Patient) -> Iterator[IncomingStudy]:
    """A Study in two or three parts: the same patient, another identity key."""
    ids = [exam.number, format_number(exam.number), patient.patient_id]
    for _ in range(rng.choice([2, 3])):
        yield IncomingStudy(
            study_instance_uid="1.2",
            patient=structs.replace(patient, patient_id=rng.choice(ids)),
            kind=rng.choice(list(Kind)),
            accession_number=rng.choice(["", exam.accession_number, f"A{rng.randint(1, 99)}"]),
            bound_exam_number=exam.number if rng.random() < 0.4 else "",
        )


def wrong_edits(count: int, seed: int) -> Iterator[tuple[Exam, list[IncomingStudy], Patient]]:
    """An exam, a Study of its patient in parts, and the other patient whose exam it really is."""
    rng = random.Random(seed)
    for _ in range(count):
        patient = _patient(rng)
        exam = _exam(rng, patient)
        other = structs.replace(
            _other(rng, patient), patient_id=rng.choice([patient.patient_id, "P0", ""])
        )
        parts = list(_parts(rng, exam, patient))
        if rng.random() < 0.3:  # a second Study, which may know the Patient ID for the first
            parts.append(structs.replace(rng.choice(parts), study_instance_uid="1.3"))
        yield exam, parts, other


def honest_pairs(count: int, seed: int) -> Iterator[tuple[IncomingStudy, list[Candidate]]]:
    """The right patient's images, with the noise that clinics make."""
    rng = random.Random(seed)
    for _ in range(count):
        patient = _patient(rng)
        exam = _exam(rng, patient)
        sent = patient
        if rng.random() < 0.10:
            sent = structs.replace(sent, **{rng.choice(["birth_date", "sex"]): ""})
        if rng.random() < 0.5:
            sent = structs.replace(sent, name=sent.name.upper())
        if rng.random() < 0.1:
            sent = structs.replace(sent, name=sent.name.replace("^", " ^ "))
        if rng.random() < 0.01:
            sent = structs.replace(sent, name=_edit(rng, sent.name))
        yield (
            IncomingStudy(
                study_instance_uid="1.2",
                patient=structs.replace(sent, patient_id=exam.number),
                kind=Kind.TECHNICIAN,
            ),
            [Candidate(exam=exam, open=True)],
        )
