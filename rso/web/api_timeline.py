"""What came of an exam, as JSON: its timeline, its images and their deliveries, its notes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct

from rso.core.exam import Exam
from rso.engine.exams import find_exam
from rso.engine.notes import exam_notes, keep_note
from rso.engine.timeline import Moment, timeline_of
from rso.ledger import Ledger
from rso.ledger.arrivals import batches_beside
from rso.ledger.attempts import attempts_of_instances
from rso.ledger.images import instances_page, series_of, ways_of, with_middles
from rso.web.auth import Identity, engine_of, signed_in
from rso.web.seen import LOOKERS, exam_seen

__all__ = ["HANDLERS", "SeriesView", "series_views"]

Ask = Request[Any, Any, Any]
Start = Annotated[int, QueryParameter(ge=0, le=10_000_000, description="Instances before it.")]
Limit = Annotated[int, QueryParameter(ge=1, le=500, description="Instances on a page.")]
SeriesStart = Annotated[int, QueryParameter(ge=0, le=10_000_000, description="Series before it.")]
SeriesLimit = Annotated[int, QueryParameter(ge=1, le=500, description="Series on a page.")]


class Timeline(Struct, frozen=True, kw_only=True):
    """The newest two hundred moments of an exam, the newest first; ``older`` ones are left out."""

    moments: list[Moment]
    older: int


class SeriesView(Struct, frozen=True, kw_only=True):
    """A Series of an exam.

    Attributes:
        size: In bytes.
        purged: Instances whose images left the archive.
        middle: The id of the instance in its middle, whose thumbnail stands for it.
    """

    study_instance_uid: str
    series_instance_uid: str
    series_number: str
    series_description: str
    modality: str
    instances: int
    size: int
    purged: int
    first_at: datetime
    last_at: datetime
    middle: str


class SeriesList(Struct, frozen=True, kw_only=True):
    """A page of the Series of an exam, in the order of its page.

    Attributes:
        more: How many follow.
        next: The ``start`` of the page that follows; ``null`` at the end.
    """

    series: list[SeriesView]
    more: int
    next: int | None


class AttemptView(Struct, frozen=True, kw_only=True):
    """Attempts to send an instance that ended alike."""

    state: str
    code: str
    reason: str
    times: int
    first_at: datetime
    last_at: datetime


class WayView(Struct, frozen=True, kw_only=True):
    """Where an instance stands on its way to one destination, and what was tried before."""

    destination: str
    state: str
    attempts: int
    code: str
    reason: str
    next_at: datetime | None
    acknowledged_at: datetime | None
    before: list[AttemptView]


class InstanceView(Struct, frozen=True, kw_only=True):
    """An instance; ``size`` in bytes, ``purged`` where its image left the archive."""

    id: str
    sop_instance_uid: str
    series_instance_uid: str
    series_number: str
    instance_number: str
    number_of_frames: int
    modality: str
    size: int
    transfer_syntax_uid: str
    received_at: datetime
    batch: str
    purged: bool
    deliveries: list[WayView]


class Instances(Struct, frozen=True, kw_only=True):
    """A page of an exam's instances by Series and Instance Number.

    Attributes:
        total: How many there are on all pages.
        next: The ``start`` of the page that follows; ``null`` at the end.
    """

    instances: list[InstanceView]
    total: int
    next: int | None


class NoteView(Struct, frozen=True, kw_only=True):
    """What somebody wrote for those who sign in."""

    at: datetime
    by: str
    note: str


class Notes(Struct, frozen=True, kw_only=True):
    """An exam's notes, the newest first."""

    notes: list[NoteView]


class NewNote(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A note to keep; nobody is told of it."""

    note: Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]


async def _exam(request: Ask, number: str, view: str) -> Exam:
    """An exam that the caller may see; that it is shown stands in the audit."""
    me = await signed_in(request)
    exam = await find_exam(engine_of(request).ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, view)
    return exam


@get("/api/exams/{number:str}/timeline")
async def api_timeline(request: Ask, number: FromPath[str]) -> Timeline:
    """What happened to an exam: people, images, deliveries and what went wrong."""
    exam = await _exam(request, number, "timeline")
    found = await timeline_of(engine_of(request).ledger, exam)
    return Timeline(moments=found.moments, older=found.older)


async def series_views(ledger: Ledger, rows: Sequence[dict[str, Any]]) -> list[SeriesView]:
    """The rows of ``series_of`` as they are shown."""
    names = [name for name in SeriesView.__struct_fields__ if name != "size"]
    return [
        SeriesView(
            size=int(row["size"]),  # PostgreSQL sums as a decimal, which JSON has as text
            **{name: row[name] for name in names},
        )
        for row in await with_middles(ledger, rows)
    ]


@get("/api/exams/{number:str}/series")
async def api_series(
    request: Ask, number: FromPath[str], start: SeriesStart = 0, limit: SeriesLimit = 200
) -> SeriesList:
    """The Series of an exam with their counts, a page at a time."""
    exam = await _exam(request, number, "images")
    ledger = engine_of(request).ledger
    rows = await series_of(ledger, exam=exam.id)
    end = start + limit
    return SeriesList(
        series=await series_views(ledger, rows[start:end]),
        more=max(len(rows) - end, 0),
        next=end if end < len(rows) else None,
    )


@get("/api/exams/{number:str}/instances")
async def api_instances(
    request: Ask,
    number: FromPath[str],
    batch: FromQuery[UUID | None] = None,
    series: Annotated[str, QueryParameter(max_length=64)] = "",
    undelivered: FromQuery[bool] = False,
    start: Start = 0,
    limit: Limit = 100,
) -> Instances:
    """Every instance with each attempt to deliver it, a page at a time.

    Only those of one `batch` and of those that the timeline has on one line with it, of one
    `series` (a Series Instance UID), or that some destination does not have yet (`undelivered`).
    """
    exam = await _exam(request, number, "images")
    ledger = engine_of(request).ledger
    rows, total = await instances_page(
        ledger,
        exam.id,
        batches=await batches_beside(ledger, exam.id, str(batch)) if batch else (),
        series=series,
        undelivered=undelivered,
        limit=limit,
        offset=start,
    )
    ways = await _ways(request, exam, [str(row["id"]) for row in rows])
    own = {"id", "batch", "purged", "deliveries"}
    same = [name for name in InstanceView.__struct_fields__ if name not in own]
    end = start + len(rows)
    return Instances(
        instances=[
            InstanceView(
                id=str(row["id"]),
                batch=str(row["batch"]),
                purged=row["purged_at"] is not None,
                deliveries=ways.get(str(row["id"]), []),
                **{name: row[name] for name in same},
            )
            for row in rows
        ],
        total=total,
        next=end if rows and end < total else None,
    )


async def _ways(request: Ask, exam: Exam, keys: list[str]) -> dict[str, list[WayView]]:
    """Each instance's ways to its destinations, with what was tried on them."""
    ledger = engine_of(request).ledger
    before: dict[tuple[str, str], list[AttemptView]] = {}
    for row in await attempts_of_instances(ledger, exam.id, keys):
        tried = AttemptView(**{name: row[name] for name in AttemptView.__struct_fields__})
        before.setdefault((str(row["instance"]), row["destination"]), []).append(tried)
    ways: dict[str, list[WayView]] = {}
    names = [name for name in WayView.__struct_fields__ if name != "before"]
    for row in await ways_of(ledger, exam.id, keys):
        instance = str(row["instance"])
        tries = before.get((instance, row["destination"]), [])
        ways.setdefault(instance, []).append(
            WayView(before=tries, **{name: row[name] for name in names})
        )
    return ways


async def _notes(request: Ask, exam: Exam) -> Notes:
    found = await exam_notes(engine_of(request).ledger, exam)
    return Notes(notes=[NoteView(**said) for said in found])


@get("/api/exams/{number:str}/notes")
async def api_notes(request: Ask, number: FromPath[str]) -> Notes:
    """What people wrote on an exam."""
    return await _notes(request, await _exam(request, number, "notes"))


@post("/api/exams/{number:str}/notes")
async def api_add_note(request: Ask, number: FromPath[str], data: JSONBody[NewNote]) -> Notes:
    """Write a note for those who sign in; nobody is told."""
    me: Identity = await signed_in(request)
    me.require(*LOOKERS)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    await keep_note(ledger, exam, me.person.email, data.note)
    await exam_seen(request, me, exam, "notes")
    return await _notes(request, exam)


HANDLERS = [api_timeline, api_series, api_instances, api_notes, api_add_note]
