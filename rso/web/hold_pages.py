"""Holds: what waits for a person, both identities side by side, and deciding it."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Template

from rso.core.errors import ExamError, MatchingError
from rso.core.matching import compare
from rso.core.matching_words import likeness_words, row_words
from rso.core.number import format_number
from rso.engine.exams import find_exam
from rso.engine.holds import (
    create_from_hold,
    recall_hold,
    reject_hold,
    release_hold,
    show_hold,
)
from rso.engine.matters import note_opened
from rso.engine.recall_notice import Heard, told_of_recall
from rso.ledger.exams import exam_by_id, now
from rso.ledger.holds import HoldRow, find_holds, open_holds
from rso.ledger.images import series_of, with_middles
from rso.ledger.studies import incoming_from_row, studies_by_ids
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page
from rso.web.seen import hold_seen
from rso.web.words import ago_words

__all__ = ["HANDLERS", "candidates_of"]

Ask = Request[Any, Any, Any]
_MOST = 200
_CANDIDATES = 8
_SERIES = 60


async def _waiting(request: Ask, me: Identity) -> dict[str, Any]:
    """What waits: alarms first, then the oldest."""
    ledger, whose = engine_of(request).ledger, me.person.facilities
    found = await find_holds(ledger, facilities=whose, alarms_first=True, most=_MOST)
    waiting = await open_holds(ledger, whose)
    at = now()
    return {
        "holds": found,
        "more": max(waiting["count"] - len(found), 0),
        "alarms": waiting["alarms"],
        "what": {hold.id: row_words(hold.row)[0] for hold in found},
        "age": {hold.id: ago_words(at - hold.opened_at) for hold in found},
    }


@get("/holds")
async def hold_list(
    request: Ask, sent: FromQuery[int | None] = None, recalled: FromQuery[str] = ""
) -> Template:
    """What waits for a person.

    ``recalled`` is a hold whose release was just taken back, ``sent`` how much of it is out.
    """
    me = await signed_in(request)
    told = None
    if recalled and sent:
        ledger = engine_of(request).ledger
        hold = await show_hold(ledger, recalled, facilities=me.person.facilities)
        told = await _told(request, me, hold)
    waiting = await _waiting(request, me)
    return page(request, "holds.html", me, sent=sent, told=told, **waiting)


async def _told(request: Ask, me: Identity, hold: HoldRow) -> Heard | None:
    """Who hears of a recall; for those who decide."""
    if hold.state != "recalled" or me.person.role not in {"coordinator", "admin"}:
        return None
    return await told_of_recall(engine_of(request).ledger, hold)


@get("/holds/rows")
async def hold_rows(request: Ask) -> Template:
    """The rows alone, for a page that is open."""
    me = await signed_in(request)
    return page(request, "hold_rows.html", me, **await _waiting(request, me))


async def candidates_of(request: Ask, hold: HoldRow, study: dict[str, Any]) -> list[dict[str, Any]]:
    """Exams that it might be, the best first: as the table says, then by what agrees."""
    ledger = engine_of(request).ledger
    incoming = incoming_from_row(study)
    suggested = list(hold.evidence.get("suggestions", []))
    said = [*suggested, hold.evidence.get("exam_number", ""), *hold.evidence.get("considered", [])]
    found: list[dict[str, Any]] = []
    for number in list(dict.fromkeys(n for n in said if n))[:20]:
        try:
            exam = await find_exam(ledger, number, facilities=[hold.facility])
        except ExamError:
            continue
        verdict = compare(incoming, exam)
        signs = {name: likeness_words(getattr(verdict, name)) for name in ("name", "birth_date",
                                                                            "sex")}  # fmt: skip
        differing = sum(sign == "≠" for sign, _ in signs.values())
        rank = suggested.index(number) if number in suggested else len(suggested) + differing
        found.append(
            {"exam": exam, "shown": format_number(exam.number), "signs": signs, "rank": rank,
             "two": verdict.needs_second_person, "swapped": verdict.day_month_swapped,
             "verdict": verdict}
        )  # fmt: skip
    return sorted(found, key=lambda candidate: candidate["rank"])[:_CANDIDATES]


async def _hold_page(
    request: Ask, me: Identity, hold_id: str, problem: str = "", form: dict[str, str] | None = None
) -> Template:
    ledger = engine_of(request).ledger
    hold = await show_hold(ledger, hold_id, facilities=me.person.facilities)
    await hold_seen(request, me, hold, "page")
    study = (await studies_by_ids(ledger, [hold.study]))[0]
    exam = await exam_by_id(ledger, hold.exam) if hold.exam else None
    series = await series_of(ledger, study=hold.study)
    made = page(
        request, "hold.html", me, hold=hold, study=study, problem=problem, form=form or {},
        candidates=await candidates_of(request, hold, study), row=row_words(hold.row),
        series=await with_middles(ledger, series[:_SERIES]),
        more_series=max(len(series) - _SERIES, 0),
        seen=_seen(hold),
        exam=exam, shown=format_number(exam.number) if exam else "",
        asked=hold.evidence.get("asked", {}), told=await _told(request, me, hold),
    )  # fmt: skip
    if problem:
        made.status_code = 422
    return made


def _seen(hold: HoldRow) -> str:
    """What must not change unnoticed while somebody looks at it."""
    return f"{hold.state}-{hold.instances}-{len(hold.first_person)}"


@get("/holds/{hold_id:str}")
async def hold_page(request: Ask, hold_id: FromPath[str]) -> Template:
    """One hold, both identities side by side."""
    me = await signed_in(request)
    shown = await _hold_page(request, me, hold_id)
    await note_opened(engine_of(request).ledger, me.person, hold=hold_id)
    return shown


@get("/holds/{hold_id:str}/changed")
async def hold_changed(
    request: Ask, hold_id: FromPath[str], seen: FromQuery[str] = ""
) -> Response[Any]:
    """Word that somebody else decided meanwhile, or that more came; nothing (204) otherwise."""
    me = await signed_in(request)
    hold = await show_hold(engine_of(request).ledger, hold_id, facilities=me.person.facilities)
    if seen == _seen(hold):
        return Response(None, status_code=204)
    return page(request, "hold_changed.html", me, hold=hold)


@post("/holds/{hold_id:str}", status_code=200)
async def decide_hold(request: Ask, hold_id: FromPath[str]) -> Response[Any]:
    """Release to an exam, make an exam of it, reject, or take a release back."""
    me = await signed_in(request)
    me.require("coordinator")
    form = await checked_form(request)
    engine = engine_of(request)
    await show_hold(engine.ledger, hold_id, facilities=me.person.facilities)
    reason = form.get("reason", "")[:2000]
    if not reason:
        return await _hold_page(request, me, hold_id, "Please give a reason.", form)
    asked: dict[str, Any] = {
        "reason": reason, "actor": me.person.email, "facilities": me.person.facilities,
    }  # fmt: skip
    try:
        return await _decide(request, me, hold_id, form, asked)
    except (ExamError, MatchingError) as exc:
        said = str(exc)
        return await _hold_page(request, me, hold_id, f"{said[:1].upper()}{said[1:]}.", form)


async def _decide(
    request: Ask, me: Identity, hold_id: str, form: dict[str, str], asked: dict[str, Any]
) -> Response[Any]:
    engine = engine_of(request)
    decision = form.get("decision")
    if decision == "release":
        number = form.get("other", "") or form.get("exam", "")
        if not number:
            return await _hold_page(request, me, hold_id, "Choose the exam.", form)
        identity = form.get("identity", "exam")
        if not await release_hold(engine, hold_id, number, identity=identity, **asked):
            return await _hold_page(
                request, me, hold_id,
                "Name and birth date both differ: a second person must release it too.",
            )  # fmt: skip
    elif decision == "create":
        await create_from_hold(engine, hold_id, **asked)
    elif decision == "recall":
        sent = await recall_hold(engine, hold_id, **asked)
        return Redirect(f"/holds?sent={sent}&recalled={hold_id}", status_code=303)
    elif decision == "reject":
        await reject_hold(engine, hold_id, **asked)
    else:
        return await _hold_page(request, me, hold_id, "Choose what to do.", form)
    return Redirect("/holds", status_code=303)


HANDLERS = [
    hold_list,
    hold_rows,
    hold_page,
    hold_changed,
    decide_hold,
]
