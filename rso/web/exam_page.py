"""One exam: the patient, its images, n of n for each destination, and what happened when."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Template
from pydicom.uid import UID

from rso.core.errors import ConfigError, ExamError
from rso.core.exam import Exam
from rso.core.number import format_number
from rso.engine.documents import documents_of
from rso.engine.exam_deliveries import ACTIONS, act_on_delivery, retry_deliveries
from rso.engine.exam_views import view_exam
from rso.engine.exams import cancel_exam, close_exam, complete_exam, find_exam
from rso.engine.matters import exam_matters, note_opened
from rso.engine.notes import exam_notes, keep_note
from rso.engine.notify import exam_notifications, naming_channels, notify_people, reachable
from rso.engine.owners import assignable, owner_of
from rso.engine.requests import asked_of
from rso.engine.timeline import timeline_of
from rso.ledger.arrivals import arrivals_of
from rso.ledger.attempts import attempts_of_instances
from rso.ledger.exams import now
from rso.ledger.images import instances_page, series_of, ways_of, with_middles
from rso.ledger.lists import released_to
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.client import is_background
from rso.web.notifying import SENDERS, chosen_people, outcome_of, read_outcome
from rso.web.page import exam_actions, page
from rso.web.seen import exam_seen

__all__ = ["HANDLERS", "show_exam"]

Ask = Request[Any, Any, Any]
Row = dict[str, Any]
_PAGE = 100
_MOST_SERIES = 200
_CHOICES = 200  # Series, or arrivals, to choose from
_DIGITS = 6  # of a number of images
_QUIET = timedelta(seconds=5)  # the middle of a Series that still grows moves on


async def _live(request: Ask, exam: Exam) -> dict[str, Any]:
    """What changes while the images come and go."""
    ledger = engine_of(request).ledger
    series, at = await series_of(ledger, exam=exam.id), now()
    timeline = await timeline_of(ledger, exam)
    first = await with_middles(ledger, series[:_MOST_SERIES])
    shown = {
        "exam": exam,
        "shown": format_number(exam.number),
        "view": await view_exam(ledger, exam),
        "series": [{**row, "quiet": at - row["last_at"] > _QUIET} for row in first],
        "more_series": len(series) - len(first),
        "images": sum(row["instances"] for row in series),
        "gone": sum(row["purged"] for row in series),
        "growing": any(at - row["last_at"] <= _QUIET for row in series),
        "moments": timeline.moments,
        "older": timeline.older,
    }
    return {**shown, "seen": sha256(repr(shown).encode()).hexdigest()[:16]}


@get("/exams/{number:str}")
async def exam_page(request: Ask, number: FromPath[str]) -> Template:
    """The whole page."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, "page")
    if not is_background(request):
        await note_opened(ledger, me.person, exam=exam)
    return await show_exam(request, me, exam)


async def show_exam(
    request: Ask, me: Identity, exam: Exam, *, status: int = 200, **more: Any
) -> Template:
    """The page, with ``more`` of what was asked there and could not be.

    ``problem`` is why ``form`` did not end the exam, ``refused`` says it for each document,
    ``note_problem`` of the note ``typed``, ``telling`` of the form that tells people.
    """
    engine = engine_of(request)
    ledger = engine.ledger
    messages = await exam_notifications(ledger, exam.id)
    shown = page(
        request,
        "exam.html",
        me,
        **more,
        **await _live(request, exam),
        reachable=await reachable(engine, exam.facility),
        naming=await naming_channels(engine),
        notifications=messages,
        outcome=read_outcome(request, messages),
        matters=await exam_matters(ledger, exam.id),
        notes=await exam_notes(ledger, exam),
        asked=await asked_of(ledger, exam),
        documents=await documents_of(ledger, exam),
        released=await released_to(ledger, exam),
        owner=await owner_of(ledger, exam),
        owners=await assignable(ledger, exam.facility),
        actions=exam_actions(request, me, exam),
    )
    shown.status_code = status
    return shown


@get("/exams/{number:str}/live")
async def exam_live(
    request: Ask, number: FromPath[str], seen: FromQuery[str] = ""
) -> Response[Any]:
    """The part that changes; nothing (204) when it is what the page shows already."""
    me = await signed_in(request)
    exam = await find_exam(engine_of(request).ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, "page", part=True)
    shown = await _live(request, exam)
    if seen == shown["seen"]:
        return Response(None, status_code=204)
    return page(request, "exam_live.html", me, swap=True, **shown)


@get("/exams/{number:str}/instances")
async def exam_instances(
    request: Ask,
    number: FromPath[str],
    batch: FromQuery[str] = "",
    series: FromQuery[str] = "",
    show: FromQuery[str] = "",
    start: FromQuery[int] = 0,
) -> Template:
    """Every instance with each attempt to deliver it, a page at a time."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, "images")
    start = max(start, 0)
    arrivals, unread = await arrivals_of(ledger, exam.id)
    came = next((row for row in arrivals if batch in row["batches"]), None)
    all_series = await series_of(ledger, exam=exam.id)
    rows, total = await instances_page(
        ledger,
        exam.id,
        batches=came["batches"] if came else _keys(batch),
        series=series[:64],
        undelivered=show == "undelivered",
        limit=_PAGE,
        offset=min(start, 10_000_000),
    )
    keys = [str(row["id"]) for row in rows]
    ways: dict[str, list[dict[str, Any]]] = {}
    for way in await ways_of(ledger, exam.id, keys):
        ways.setdefault(str(way["instance"]), []).append(way)
    attempts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for attempt in await attempts_of_instances(ledger, exam.id, keys):
        key = (str(attempt["instance"]), attempt["destination"])
        attempts.setdefault(key, []).append(attempt)
    return page(
        request, "exam_instances.html", me,
        exam=exam, shown=format_number(exam.number), rows=rows, total=total, start=start,
        size=_PAGE, ways=ways, attempts=attempts, show=show, series=series,
        batch=came["id"] if came else batch,
        all_series=_offered(all_series, lambda row: row["series_instance_uid"] == series),
        arrivals=_offered(arrivals, lambda row: row is came),
        unlisted=max(len(arrivals) - _CHOICES, 0) + unread,
        unlisted_series=max(len(all_series) - _CHOICES, 0),
        syntax=lambda uid: UID(uid).name,
    )  # fmt: skip


def _offered(rows: Sequence[Row], is_chosen: Callable[[Row], bool]) -> list[Row]:
    """The first so many to choose from, and what is chosen."""
    return [row for n, row in enumerate(rows) if n < _CHOICES or is_chosen(row)]


def _keys(text: str) -> list[str]:
    """A key as the ledger takes it, if there is one; one that nothing has where it is none."""
    if not text:
        return []
    try:
        return [str(UUID(text))]
    except ValueError:
        return [str(UUID(int=0))]


@post("/exams/{number:str}/deliveries/{code:str}/{action:str}", status_code=303)
async def delivery_action(
    request: Ask, number: FromPath[str], code: FromPath[str], action: FromPath[str]
) -> Redirect:
    """Retry, stop or send again on the way to one destination."""
    me, exam = await _to_change(request, number)
    await checked_form(request)
    if action not in ACTIONS:
        raise NotFoundException("no such action")
    await act_on_delivery(engine_of(request), exam, code, action, actor=me.person.email)
    return Redirect(f"/exams/{exam.number}", status_code=303)


async def _to_change(request: Ask, number: str) -> tuple[Identity, Exam]:
    me = await signed_in(request)
    me.require("technician", "coordinator")
    exam = await find_exam(engine_of(request).ledger, number, facilities=me.person.facilities)
    return me, exam


@post("/exams/{number:str}/notes", status_code=303)
async def add_note(request: Ask, number: FromPath[str]) -> Redirect | Template:
    """Write a note for those who sign in; one that is too long is there to be cut."""
    me = await signed_in(request)
    me.require(*SENDERS)
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    form = await checked_form(request)
    typed = form.get("note", "")
    try:
        await keep_note(engine.ledger, exam, me.person.email, typed)
    except ConfigError as exc:
        return await show_exam(
            request, me, exam, status=400, note_problem=_sentence(exc), typed=typed
        )
    return Redirect(f"/exams/{exam.number}#notes", status_code=303)


@post("/exams/{number:str}/notify", status_code=303)
async def notify_form(request: Ask, number: FromPath[str]) -> Redirect | Template:
    """Tell the ticked people of this exam; the page says whom, or why nobody."""
    me = await signed_in(request)
    me.require(*SENDERS)
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    form = await checked_form(request)
    try:
        told = await notify_people(
            engine, exam, chosen_people(form), actor=me.person.email, note=form.get("note", "")
        )
    except ConfigError as exc:
        return await show_exam(
            request, me, exam, status=400,
            telling={"form": form, "problems": {"note": _sentence(exc)}},
        )  # fmt: skip
    where = f"/exams/{exam.number}?{outcome_of(len(told.people), len(told.left_out))}"
    return Redirect(f"{where}#notifications", status_code=303)


def _sentence(exc: ConfigError) -> str:
    said = str(exc)
    return f"{said[:1].upper()}{said[1:]}."


@post("/exams/{number:str}/{action:str}", status_code=303)
async def exam_action(
    request: Ask, number: FromPath[str], action: FromPath[str]
) -> Redirect | Template:
    """Complete, cancel, close, or retry what was stopped; the page again where that cannot be."""
    me, exam = await _to_change(request, number)
    if action == "close":
        me.require("coordinator")  # as by the API
    engine, actor = engine_of(request), me.person.email
    form = await checked_form(request)
    reason = form.get("reason", "")[:500]
    try:
        if action == "complete":
            await complete_exam(engine, exam, actor=actor, expected=_images(form))
        elif action == "cancel":
            await cancel_exam(engine, exam, actor=actor, reason=reason)
        elif action == "close":
            await close_exam(engine, exam, actor=actor, reason=reason)
        elif action == "retry":
            await retry_deliveries(engine, exam, actor=actor)
        else:
            raise NotFoundException("no such action")
    except (ConfigError, ExamError) as exc:
        exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
        return await show_exam(
            request, me, exam, status=400 if isinstance(exc, ConfigError) else 409,
            problem=str(exc), form={**form, "action": action},
        )  # fmt: skip
    return Redirect(f"/exams/{exam.number}", status_code=303)


def _images(form: dict[str, str]) -> int | None:
    """How many images a form says there are; ``None`` where it leaves that open."""
    said = form.get("expected", "")
    if not said:
        return None
    if not (said.isascii() and said.isdecimal() and len(said) <= _DIGITS):
        raise ConfigError(f"how many images there are is said in at most {_DIGITS} digits")
    return int(said)


HANDLERS = [
    exam_page,
    exam_live,
    exam_instances,
    delivery_action,
    add_note,
    notify_form,
    exam_action,
]
