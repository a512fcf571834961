"""Whose images are these? One table, one pure function.

The rows are numbered as in docs/matching.md; the first that fits decides, and every combination
of evidence ends in one. Demographics alone never match, and whatever disagrees waits for a person.
"""

from collections.abc import Sequence

from msgspec import structs

from rso.core.errors import ExamError
from rso.core.exam import Exam, ExamStatus, Patient
from rso.core.matching_evidence import (
    Action,
    Candidate,
    Decision,
    IncomingStudy,
    LinkedStudy,
    Verdict,
    compare,
    compare_patient,
    identity_key,
)
from rso.core.names import Likeness, compare_names, parse_birth_date, read_name
from rso.core.number import format_number, looks_like_number, parse_number
from rso.core.transport import Kind

__all__ = [
    "Action",
    "Candidate",
    "Decision",
    "IncomingStudy",
    "LinkedStudy",
    "Verdict",
    "compare",
    "decide",
    "identity_key",
]

ONE_DEMOGRAPHIC = "one demographic"


def decide(
    study: IncomingStudy,
    candidates: Sequence[Candidate],
    *,
    foreign_number: bool = False,
    allow_empty_demographics: bool = False,
) -> Decision:
    """Decide on a Study.

    Args:
        study: What arrived, from a source whose facility the channel authenticated.
        candidates: Exams of that facility that share any identifier or the birth date; more do
            no harm.
        foreign_number: The number that the Study names belongs to another facility.
        allow_empty_demographics: The facility's opt-in for row 7.
    """
    case = _Case(study, candidates)
    decision = (
        case.linked_rows()
        or case.number_rows(allow_empty_demographics=allow_empty_demographics)
        or case.wrong_number_row(foreign=foreign_number)
        or case.accession_rows()
        or case.patient_id_rows()
        or case.last_rows()
    )
    return structs.replace(decision, considered=tuple(sorted(c.exam.number for c in candidates)))


class _Case:
    """The evidence on one Study, asked row by row."""

    def __init__(self, study: IncomingStudy, candidates: Sequence[Candidate]) -> None:
        self.study = study
        self.candidates = candidates
        self.patient_id = study.patient.patient_id.strip()
        self.number = study.bound_exam_number or self._number_in_header()

    def _number_in_header(self) -> str:
        try:
            number = parse_number(self.patient_id)
        except ExamError:
            return ""
        exactly = self.patient_id.upper() in {number, format_number(number)}
        return number if exactly or self.study.kind is Kind.TECHNICIAN else ""

    def _verdict(self, candidate: Candidate) -> Verdict:
        return compare(self.study, candidate.exam, candidate.linked)

    def linked_rows(self) -> Decision | None:
        """Rows 1 and 2: the Study Instance UID is known."""
        homes = [c for c in self.candidates if self._study_of(c)]
        if not homes:
            return None
        home = homes[0]
        numbers = {c.exam.number for c in self.candidates}
        elsewhere = self.number in numbers and self.number != home.exam.number
        if len(homes) == 1 and not elsewhere and self._continues(home):
            if home.open:
                return _auto(1, home, "more of a Study that this exam has already")
            return _hold(1, "late", "more of a Study whose exam is not open", [home])
        verdict = compare_patient(self.study, self._study_of(homes[0])[0].patient)
        return _hold(
            2,
            "identity changed",
            "the Study is linked to an exam already, and this part of it names somebody else",
            homes,
            verdict,
            alarm=True,
            stop_study=True,
        )

    def _study_of(self, candidate: Candidate) -> list[LinkedStudy]:
        uid = self.study.study_instance_uid
        return [known for known in candidate.linked if known.study_instance_uid == uid]

    def _continues(self, home: Candidate) -> bool:
        exam = home.exam
        bound = self.study.bound_exam_number
        if bound and bound != exam.number:
            return False
        return any(self._same_patient(exam, known) for known in self._study_of(home))

    def _same_patient(self, exam: Exam, known: LinkedStudy) -> bool:
        ours, theirs = self.study.patient, known.patient
        if not _same_name(ours, theirs) or self.study.undecodable:
            return False
        if parse_birth_date(ours.birth_date) != parse_birth_date(theirs.birth_date):
            return False
        if ours.sex.strip().upper() != theirs.sex.strip().upper():
            return False
        own = {exam.number, exam.patient.patient_id.strip()} - {""}
        # A number is compared as a number: people add dashes.
        one = self.number or self.patient_id
        other = theirs.patient_id.strip()
        return self.patient_id == other or (one in own and _plain(other, exam.number) in own)

    def number_rows(  # noqa: PLR0911  (a row each)
        self, *, allow_empty_demographics: bool
    ) -> Decision | None:
        """Rows 3 to 8: the exam number, in the header or by a bound upload."""
        hit = next((c for c in self.candidates if self.number == c.exam.number), None)
        if hit is None or not self.number:
            return None
        if not hit.open:
            return _hold(3, "late", "the exam with this number is not open", [hit])
        verdict = self._verdict(hit)
        name, birth_date = verdict.name, verdict.birth_date
        if verdict.sex_fits:
            if name in {Likeness.EXACT, Likeness.CLOSE} and birth_date is Likeness.EQ:
                return _auto(4, hit, "exam number, name and birth date agree", verdict)
            if name is Likeness.EXACT and birth_date is Likeness.EMPTY:
                return _auto(
                    5, hit, "exam number and name agree", verdict, flags=(ONE_DEMOGRAPHIC,)
                )
            if name is Likeness.EMPTY and birth_date is Likeness.EQ:
                return _auto(
                    6, hit, "exam number and birth date agree", verdict, flags=(ONE_DEMOGRAPHIC,)
                )
        if name is Likeness.EMPTY and birth_date is Likeness.EMPTY:
            if allow_empty_demographics and verdict.sex_fits:
                return _auto(
                    7,
                    hit,
                    "exam number alone, as this facility allows",
                    verdict,
                    flags=("no demographics",),
                )
            return _hold(
                7,
                "no demographics",
                "the exam number fits, but nothing else can be compared",
                [hit],
                verdict,
            )
        return _hold(
            8, "mismatch", "the exam number fits, but the patient does not agree", [hit], verdict
        )

    def wrong_number_row(self, *, foreign: bool) -> Decision | None:
        """Row 9: a technician's number that is no number of this facility."""
        bound = bool(self.study.bound_exam_number)
        meant = self.study.kind is Kind.TECHNICIAN and looks_like_number(self.patient_id)
        if not bound and not meant:
            return None
        return _hold(
            9,
            "wrong number",
            "the Patient ID looks like an exam number, but this facility has no such exam",
            security_alert=foreign,
        )

    def accession_rows(self) -> Decision | None:
        """Rows 10 and 11: the Accession Number of exactly one open exam."""
        hits = [c for c in self.candidates if c.open and self._accession_hits(c.exam)]
        if len(hits) != 1:
            return None
        verdict = self._verdict(hits[0])
        if (
            verdict.name in {Likeness.EXACT, Likeness.CLOSE}
            and verdict.birth_date is Likeness.EQ
            and verdict.sex_fits
        ):
            return _auto(10, hits[0], "Accession Number, name and birth date agree", verdict)
        return _hold(
            11,
            "mismatch",
            "the Accession Number fits, but the patient does not agree enough",
            hits,
            verdict,
        )

    def _accession_hits(self, exam: Exam) -> bool:
        accession = self.study.accession_number.strip()
        if not accession:
            return False
        own = {exam.number, format_number(exam.number), exam.accession_number.strip()}
        return accession in own

    def patient_id_rows(self) -> Decision | None:
        """Rows 12 to 16: the facility's own Patient ID."""
        known = [c for c in self.candidates if self._knows(c)]
        if not known:
            return None
        takers = [c for c in known if c.open and self._takes(c)]
        verdicts = {c.exam.number: self._verdict(c) for c in known}
        integration = self.study.kind is Kind.INTEGRATION
        if len(takers) == 1:
            return self._one_taker(takers[0], verdicts, integration=integration)
        of_takers = [verdicts[c.exam.number] for c in takers]
        if takers and all(_agrees(v, blank_date=True) for v in of_takers):
            return _hold(
                14,
                "which exam",
                "several open exams of this patient could take it",
                takers,
                of_takers[0],
            )
        if not takers and all(_agrees(v, blank_date=integration) for v in verdicts.values()):
            if integration:
                return Decision(
                    action=Action.CREATE,
                    row=15,
                    reason="known patient",
                    explanation="the patient is known, but no open exam takes the Study",
                )
            return _hold(
                15, "unsolicited", "the patient is known, but no open exam awaits images", known
            )
        return self._known_otherwise(known, verdicts)

    def _one_taker(
        self, taker: Candidate, verdicts: dict[str, Verdict], *, integration: bool
    ) -> Decision:
        verdict = verdicts[taker.exam.number]
        if _agrees(verdict, blank_date=False):
            return _auto(12, taker, "Patient ID, name and birth date agree", verdict)
        # A blank birth date must not let a reused Patient ID through.
        unanimous = all(v.name is Likeness.EXACT for v in verdicts.values())
        if integration and unanimous and _agrees(verdict, blank_date=True):
            return _auto(13, taker, "Patient ID and name agree", verdict, flags=(ONE_DEMOGRAPHIC,))
        known = [c for c in self.candidates if c.exam.number in verdicts]
        return self._known_otherwise([taker, *(c for c in known if c is not taker)], verdicts)

    def _known_otherwise(
        self, known: Sequence[Candidate], verdicts: dict[str, Verdict]
    ) -> Decision:
        worst = max(
            (verdicts[c.exam.number] for c in known),
            key=lambda v: [v.name, v.birth_date, v.sex].count(Likeness.DIFF),
        )
        return _hold(
            16,
            "mismatch",
            "the Patient ID is known here, but the patient does not agree enough",
            known,
            worst,
        )

    def _knows(self, candidate: Candidate) -> bool:
        patients = [candidate.exam.patient, *(known.patient for known in candidate.linked)]
        return any(self._same_id(p, candidate.exam.number) for p in patients)

    def _same_id(self, patient: Patient, number: str) -> bool:
        theirs, ours = patient.issuer_of_patient_id, self.study.patient.issuer_of_patient_id
        if not self.patient_id or _plain(self.patient_id, number) == number:
            return False  # an exam number is the number, not the facility's Patient ID
        same_issuer = not theirs.strip() or not ours.strip() or theirs.strip() == ours.strip()
        return same_issuer and patient.patient_id.strip() == self.patient_id

    def _takes(self, candidate: Candidate) -> bool:
        exam = candidate.exam
        if exam.status is ExamStatus.REQUESTED and not candidate.linked:
            return True
        ours = self.study.accession_number.strip()
        theirs = exam.accession_number.strip()
        return not ours or not theirs or ours in {theirs, exam.number}

    def last_rows(self) -> Decision:
        """Rows 17 to 19: no identifier of this facility's."""
        alike = [
            c
            for c in self.candidates
            if c.open
            and (verdict := self._verdict(c)).name is Likeness.EXACT
            and verdict.birth_date is Likeness.EQ
            and verdict.sex_fits
        ]
        if alike:
            return _hold(
                17,
                "suggestion",
                "no identifier fits, but name and birth date fit an open exam",
                alike,
                self._verdict(alike[0]),
            )
        ambiguous = any(c.open and self._accession_hits(c.exam) for c in self.candidates)
        named = any(read_name(self.study.patient.name)) and not self.study.undecodable
        if self.study.kind is Kind.INTEGRATION and self.patient_id and named and not ambiguous:
            return Decision(
                action=Action.CREATE,
                row=18,
                reason="new patient",
                explanation="no exam fits: the exam is created from the images",
            )
        return _hold(19, "unsolicited", "nothing shows which exam is meant")


def _plain(text: str, number: str) -> str:
    """``number`` where ``text`` is that number as people write it, else ``text``."""
    try:
        return number if parse_number(text) == number else text
    except ExamError:
        return text


def _same_name(one: Patient, other: Patient) -> bool:
    ours, theirs = read_name(one.name), read_name(other.name)
    if not any(ours) or not any(theirs):
        return not any(ours) and not any(theirs)
    return compare_names(one.name, other.name) is Likeness.EXACT


def _agrees(verdict: Verdict, *, blank_date: bool) -> bool:
    dates = {Likeness.EQ, Likeness.EMPTY} if blank_date else {Likeness.EQ}
    return verdict.name is Likeness.EXACT and verdict.birth_date in dates and verdict.sex_fits


def _auto(
    row: int,
    candidate: Candidate,
    explanation: str,
    verdict: Verdict | None = None,
    *,
    flags: tuple[str, ...] = (),
) -> Decision:
    return Decision(
        action=Action.AUTO,
        row=row,
        reason="match",
        explanation=explanation,
        exam_number=candidate.exam.number,
        name=verdict.name if verdict else None,
        birth_date=verdict.birth_date if verdict else None,
        sex=verdict.sex if verdict else None,
        flags=flags,
    )


def _hold(
    row: int,
    reason: str,
    explanation: str,
    suspects: Sequence[Candidate] = (),
    verdict: Verdict | None = None,
    *,
    alarm: bool = False,
    security_alert: bool = False,
    stop_study: bool = False,
) -> Decision:
    hints = ("day and month swapped",) if verdict and verdict.day_month_swapped else ()
    return Decision(
        action=Action.HOLD,
        row=row,
        reason=reason,
        explanation=explanation,
        name=verdict.name if verdict else None,
        birth_date=verdict.birth_date if verdict else None,
        sex=verdict.sex if verdict else None,
        flags=hints,
        alarm=alarm or bool(verdict and verdict.differs),
        security_alert=security_alert,
        stop_study=stop_study,
        suggestions=tuple(c.exam.number for c in suspects),
    )
