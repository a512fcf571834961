"""What is typed into a request: one list of fields for form, page, API and worksheet."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from rso.core.errors import ConfigError
from rso.core.exam import Exam, Origin, Patient, Priority
from rso.core.names import Likeness, compare_names, parse_birth_date
from rso.ledger import Ledger
from rso.ledger.exams import OPEN_STATUSES, exam_from_row, lock_exams, open_since

__all__ = [
    "FIELDS",
    "MOST",
    "SIDES",
    "UNKNOWN_PATIENT",
    "Asked",
    "Field",
    "as_shown",
    "asked_of",
    "change_request",
    "check_change",
    "check_day",
    "duplicates_of",
    "iso_day",
    "read_request",
    "request_of",
    "unknown_name",
]

UNKNOWN_PATIENT = "unknown patient"
SIDES = ("right", "left", "both sides", "has no side")
_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"


class Field(Struct, frozen=True, kw_only=True):
    """One field of a request.

    Attributes:
        most: Characters that it may have.
    """

    name: str
    label: str
    most: int = 200


FIELDS = (
    Field(name="laterality", label="Side"),
    Field(name="procedure", label="Procedure"),
    Field(name="study_date", label="Study date", most=10),
    Field(name="indication", label="Indication", most=4000),
    Field(name="history", label="History", most=4000),
    Field(name="allergies", label="Allergies", most=1000),
    Field(name="contrast", label="Contrast medium"),
    Field(name="pregnancy", label="Pregnancy"),
    Field(name="priors", label="Earlier exams", most=2000),
    Field(name="priority_reason", label="Reason for STAT", most=1000),
    Field(name="referrer", label="Referring physician"),
    Field(name="callback", label="Callback phone", most=64),
    Field(name="fax", label="Fax", most=64),
)
# Of every text of the form: how many characters it may have.
MOST = {
    **dict.fromkeys(("family", "given", "middle", "patient_id", "body_part"), 64),
    **dict.fromkeys(("modality", "accession_number"), 16),
    **{field.name: field.most for field in FIELDS},
    "note": 2000,
}


class Asked(Struct, frozen=True, kw_only=True):
    """A request as it was typed; ``problems`` says by field what is missing or wrong."""

    patient: Patient
    priority: Priority
    modality: str
    body_part: str
    accession_number: str
    request: dict[str, str]
    unknown: bool
    problems: dict[str, str]


def unknown_name(sex: str) -> str:
    """A name for somebody nobody knows yet; matching reads it as no name at all.

    The family name is UNKNOWN; the rest tells two unknown patients of one night apart.
    """
    label = "".join(secrets.choice(_LETTERS) for _ in range(4))
    return f"UNKNOWN^{'JANE' if sex == 'F' else 'JOHN'} DOE {label}"


def iso_day(text: str) -> str:
    """A day as ``YYYY-MM-DD``, however it is written; empty where it is no real day."""
    day = parse_birth_date(text)
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if day else ""


def check_day(field: str, text: str) -> str:
    """A day that a program sent, as ``YYYYMMDD``; empty where it sent none.

    Raises:
        ConfigError: It is no real day.
    """
    day = parse_birth_date(text)
    if text and not day:
        raise ConfigError(f"{field} is no day")
    return day


def as_shown(name: str, text: str) -> str:
    """A field's text as a form shows it, and has it back from a browser when nobody changes it."""
    plain = text.replace("\r\n", "\n").strip()
    return (iso_day(plain) if name.endswith("_date") else "") or plain


def read_request(
    form: Mapping[str, str], before: Patient | None = None, shown: Mapping[str, str] | None = None
) -> Asked:
    """Read a form; nothing of it is cut.

    Args:
        form: What was typed.
        before: The patient as known so far, where an exam is edited.
        shown: The form of that exam as it stands: what is not changed is not refused.
    """
    shown = shown or {}
    problems = _problems(form, shown, new=before is None)
    sex = form.get("sex", "") if form.get("sex") in {"M", "F", "O", shown.get("sex")} else ""
    unknown = bool(form.get("unknown"))
    priority = form.get("priority", "routine")
    patient = Patient(
        name=unknown_name(sex) if unknown else _name(form, before),
        patient_id=form.get("patient_id", ""),
        issuer_of_patient_id=before.issuer_of_patient_id if before else "",
        birth_date=parse_birth_date(form.get("birth_date", "")),
        sex=sex,
    )
    if before is not None:  # as it came, and not as a form writes it: nothing is matched anew
        same = [n for n in ("patient_id", "birth_date") if form.get(n, "") == shown.get(n)]
        patient = structs.replace(patient, **{name: getattr(before, name) for name in same})
    return Asked(
        patient=patient,
        priority=Priority(priority) if priority in set(Priority) else Priority.ROUTINE,
        modality=form.get("modality", "").upper(),
        body_part=form.get("body_part", ""),
        accession_number=form.get("accession_number", ""),
        request={f.name: as_shown(f.name, form.get(f.name, "")) for f in FIELDS},
        unknown=unknown,
        problems=problems,
    )


def _problems(form: Mapping[str, str], shown: Mapping[str, str], *, new: bool) -> dict[str, str]:
    """What is missing or wrong, by field."""
    problems = {}
    changed = {name: text for name, text in form.items() if text != shown.get(name, "")}
    for name, most in MOST.items():
        if len(text := changed.get(name, "")) > most:
            problems[name] = f"At most {most} characters; here are {len(text)}."
    for name in ("birth_date", "study_date"):
        if changed.get(name) and not parse_birth_date(changed[name]):
            problems[name] = "Enter a real day."
    # Images may come without a name; who edits their exam need not know one.
    if not form.get("family") and not form.get("unknown") and (new or shown.get("family")):
        problems["family"] = "Enter the family name, or say that the patient is unknown."
    if not form.get("indication"):
        problems["indication"] = "Say why the exam is asked for."
    if form.get("priority") == "stat" and not form.get("priority_reason"):
        problems["priority_reason"] = "A STAT exam needs a reason."
    return problems


def _name(form: Mapping[str, str], before: Patient | None) -> str:
    """A Person Name of the typed parts; prefix, suffix and other scripts stay as they were."""
    typed = [form.get(name, "") for name in ("family", "given", "middle")]
    alphabetic, *groups = (before.name if before else "").split("=")
    parts = alphabetic.split("^")
    if before is not None and [as_shown("", part) for part in [*parts, "", ""][:3]] == typed:
        return before.name
    typed = [text.translate({ord(c): " " for c in "^=\\"}) for text in typed]
    name = "^".join([*typed, *parts[3:]]).rstrip("^")
    return "=".join([name, *groups]).rstrip("=")


async def request_of(ledger: Ledger, exam: Exam) -> dict[str, Any]:
    """Everything that was typed for an exam, and notes from before they had rows of their own."""
    rows = await ledger.fetch("SELECT request FROM exam WHERE id = ?", exam.id)
    found: dict[str, Any] = msgspec.json.decode(rows[0]["request"] or "{}") if rows else {}
    return found


async def asked_of(ledger: Ledger, exam: Exam) -> list[tuple[str, str]]:
    """Label and text of each field of the request that says something."""
    said = await request_of(ledger, exam)
    return [
        (field.label, as_shown(field.name, str(said[field.name])))
        for field in FIELDS
        if said.get(field.name)
    ]


async def change_request(ledger: Ledger, exam: Exam, request: Mapping[str, str]) -> list[str]:
    """Write changed fields of a request; returns their names. Call inside a transaction."""
    await lock_exams(ledger, [exam.id])  # a note that is written meanwhile stays
    said = await request_of(ledger, exam)
    known = {field.name for field in FIELDS}
    changed = [
        name
        for name, text in request.items()
        if name in known and as_shown(name, str(said.get(name, ""))) != as_shown(name, text)
    ]
    if changed:
        said |= {name: request[name] for name in changed}
        await ledger.execute(
            "UPDATE exam SET request = ? WHERE id = ?", msgspec.json.encode(said).decode(), exam.id
        )
    return changed


def check_change(
    exam: Exam, said: Mapping[str, Any], request: Mapping[str, str], priority: Priority
) -> None:
    """Refuse a change that takes away what the form requires; what was never said may stay so.

    Args:
        exam: As it stands.
        said: Its request as it stands.
        request: The fields that change.
        priority: As it shall be.

    Raises:
        ConfigError: No indication is left, or no reason for STAT.
    """
    if request.get("indication") == "" and exam.origin is Origin.REQUEST:
        raise ConfigError("an exam that was asked for has an indication")
    touched = "priority_reason" in request or priority is not exam.priority
    reason = request.get("priority_reason", said.get("priority_reason"))
    if touched and priority is Priority.STAT and not reason:
        raise ConfigError("a STAT exam needs a reason: priority_reason")


async def duplicates_of(
    ledger: Ledger, facility: str, patient: Patient, open_days: int
) -> Sequence[Exam]:
    """Open exams of the facility that look like the same patient's: by ID, or name and birth date.

    The newest first, a dozen at most.
    """
    clauses, values = [], list[Any]()
    for column, value in (("patient_id", patient.patient_id), ("birth_date", patient.birth_date)):
        if value:
            clauses.append(f"{column} = ?")
            values.append(value)
    if not clauses:
        return []
    states = ",".join(f"'{status.value}'" for status in OPEN_STATUSES)
    rows = await ledger.fetch(
        f"SELECT * FROM exam WHERE facility = ? AND status IN ({states}) AND created_at > ?"  # noqa: S608
        f" AND ({' OR '.join(clauses)}) ORDER BY created_at DESC LIMIT 200",
        facility,
        open_since(open_days),
        *values,
    )
    exams = [exam_from_row(row) for row in rows]
    return [exam for exam in exams if _same(exam.patient, patient)][:12]


def _same(one: Patient, other: Patient) -> bool:
    if other.patient_id and one.patient_id == other.patient_id:
        return True
    same_day = bool(other.birth_date) and one.birth_date == other.birth_date
    alike = compare_names(one.name, other.name, same_birth_date=same_day)
    return same_day and alike in {Likeness.EXACT, Likeness.CLOSE}
