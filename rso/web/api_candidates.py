"""A hold's two identities as JSON: what was received, and the exams that it might be."""

from typing import Any

from litestar import Request, get
from litestar.params import FromPath
from msgspec import Struct

from rso.core.matching_words import row_words
from rso.engine.holds import show_hold
from rso.ledger.images import series_of
from rso.ledger.studies import studies_by_ids
from rso.web.api_timeline import SeriesView, series_views
from rso.web.auth import engine_of, signed_in
from rso.web.hold_pages import candidates_of
from rso.web.seen import hold_seen

__all__ = ["HANDLERS"]

_MOST_SERIES = 200


class Received(Struct, frozen=True, kw_only=True):
    """What the images say; empty where they do not.

    Attributes:
        kind: That of the source.
        series: The first two hundred.
        more_series: How many there are besides.
    """

    study_instance_uid: str
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    accession_number: str
    modality: str
    body_part: str
    study_date: str
    description: str
    kind: str
    series: list[SeriesView]
    more_series: int


class Agreement(Struct, frozen=True, kw_only=True):
    """How they compare: ``exact`` or ``equal``, ``close``, ``differs``, ``empty`` on a side."""

    name: str
    birth_date: str
    sex: str


class Candidate(Struct, frozen=True, kw_only=True):
    """An exam that it might be.

    Attributes:
        day_month_swapped: The birth dates differ in the order of day and month only.
        two_people: Two people must release it to this exam.
    """

    exam_number: str
    status: str
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    modality: str
    body_part: str
    agreement: Agreement
    day_month_swapped: bool
    two_people: bool


class Candidates(Struct, frozen=True, kw_only=True):
    """Both sides of a hold.

    Attributes:
        what: What the row of the matching table says, in words; empty where it did not decide.
        advice: What to do about it.
        candidates: The best first.
    """

    what: str
    advice: str
    received: Received
    candidates: list[Candidate]


@get("/api/holds/{hold_id:str}/candidates")
async def api_candidates(request: Request[Any, Any, Any], hold_id: FromPath[str]) -> Candidates:
    """What was received beside the exams that it might be, with what agrees and what differs."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    hold = await show_hold(ledger, hold_id, facilities=me.person.facilities)
    await hold_seen(request, me, hold, "candidates")
    study = (await studies_by_ids(ledger, [hold.study]))[0]
    what, advice = row_words(hold.row)
    own = {"series", "more_series"}
    said = {name: study[name] for name in Received.__struct_fields__ if name not in own}
    series = await series_of(ledger, study=hold.study)
    first = await series_views(ledger, series[:_MOST_SERIES])
    found = await candidates_of(request, hold, study)
    return Candidates(
        what=what,
        advice=advice,
        received=Received(series=first, more_series=len(series) - len(first), **said),
        candidates=[_candidate(one) for one in found],
    )


def _candidate(found: dict[str, Any]) -> Candidate:
    exam, verdict = found["exam"], found["verdict"]
    return Candidate(
        exam_number=exam.number,
        status=exam.status.value,
        patient_name=exam.patient.name,
        patient_id=exam.patient.patient_id,
        birth_date=exam.patient.birth_date,
        sex=exam.patient.sex,
        modality=exam.modality,
        body_part=exam.body_part,
        agreement=Agreement(
            name=verdict.name.value, birth_date=verdict.birth_date.value, sex=verdict.sex.value
        ),
        day_month_swapped=verdict.day_month_swapped,
        two_people=verdict.needs_second_person,
    )


HANDLERS = [api_candidates]
