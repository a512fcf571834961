"""The Active patient list and one's own views of it as JSON."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, delete, get, patch, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from rso.core.exam import ExamStatus, Priority
from rso.ledger.active import Filters, Found, find_active
from rso.ledger.exams import now
from rso.ledger.preferences import SavedView, choose_view, remove_view, save_view, views_of
from rso.web.active_list import active_counts, is_done
from rso.web.auth import engine_of, signed_in
from rso.web.words import event_words

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_OWNERS = {"": "", "nobody": "-"}


class ViewFilters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the list is narrowed to, and its order.

    Attributes:
        status: Also one that is not active any more; ``null``: every active one.
        owner: ``mine``, ``nobody``'s, or empty for everybody's.
        sort: ``urgency``: what needs a person, what is overdue, then the rest by the time left.
    """

    status: ExamStatus | None = None
    facility: Annotated[str, Meta(max_length=64)] = ""
    priority: Priority | None = None
    modality: Annotated[str, Meta(max_length=16)] = ""
    owner: Literal["", "mine", "nobody"] = ""
    sort: Literal["urgency", "newest", "oldest", "name"] = "urgency"


class ActiveQuery(ViewFilters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody wants to see; it is posted, so that no name stands in a URL.

    Attributes:
        search: The beginning of an exam number, a family name or a Patient ID.
        cursor: An answer's ``here``, ``next`` or ``previous``, with the same filters; one of
            another order is the top of the list. It may hold a name.
        limit: Exams on a page.
    """

    search: Annotated[str, Meta(max_length=100)] = ""
    cursor: Annotated[str, Meta(max_length=2000)] = ""
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


class ActiveExam(Struct, frozen=True, kw_only=True):
    """An exam of the list, with its patient.

    Attributes:
        group: Why it stands where it stands: ``trouble``, ``overdue``, ``delivered``, or empty.
        due_at: The end of its turnaround target; ``null`` where no clock runs any more.
        delivered: Instances that every destination has acknowledged.
        held: Studies of it that wait for a decision.
        stopped: Destinations where its delivery stopped.
    """

    exam_number: str
    group: str
    status: str
    priority: str
    due_at: datetime | None
    overdue: bool
    facility: str
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    modality: str
    body_part: str
    instances: int
    delivered: int
    held: int
    stopped: int
    flags: list[str]
    owner: str
    last_event: str
    last_event_at: datetime
    created_at: datetime


class ActiveExams(Struct, frozen=True, kw_only=True):
    """A page of the list.

    Attributes:
        counts: Active exams of the caller's facilities by status, whatever the page is narrowed to.
        here: The ``cursor`` of this page, for another look; ``null`` at the top.
    """

    exams: list[ActiveExam]
    counts: dict[str, int]
    here: str | None
    previous: str | None
    next: str | None


class ViewList(Struct, frozen=True, kw_only=True):
    """The caller's views; ``first`` is the key of the one that the list opens with, or empty."""

    views: list[SavedView]
    first: str


class NewView(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A view to keep, in place of one of the same name."""

    name: Annotated[str, Meta(min_length=1, max_length=40)]
    filters: ViewFilters = ViewFilters()


class FirstView(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The key of the view that the list opens with; empty: with none."""

    first: Annotated[str, Meta(max_length=32)]


def _exam(found: Found, at: datetime) -> ActiveExam:
    row = found.row
    word, when = event_words(row)
    done = is_done(row)
    same = ("status", "facility", "patient_name", "patient_id", "birth_date", "sex", "modality",
            "body_part", "instances", "held", "stopped", "owner", "created_at")  # fmt: skip
    return ActiveExam(
        exam_number=row["number"],
        group=found.group,
        priority=list(Priority)[row["priority"]].value,
        due_at=None if done else row["due_at"],
        overdue=not done and row["due_at"] < at,
        delivered=row["delivered"] or 0,
        flags=msgspec.json.decode(row["flags"], type=list[str]),
        last_event=word,
        last_event_at=when,
        **{name: row[name] for name in same},
    )


@post("/api/active", status_code=200)
async def api_active(request: Ask, data: JSONBody[ActiveQuery]) -> ActiveExams:
    """The Active patient list: filtered, searched, in any order, a page at a time."""
    me = await signed_in(request)
    engine, at, whose = engine_of(request), now(), me.person.facilities
    wanted = Filters(
        search=data.search,
        status=data.status.value if data.status else "",
        facility=data.facility,
        rank=data.priority.rank if data.priority else None,
        modality=data.modality,
        owner=_OWNERS.get(data.owner, me.person.email),
        sort=data.sort,
    )
    found = await find_active(
        engine.ledger, whose, wanted, at=at, cursor=data.cursor, limit=data.limit
    )
    return ActiveExams(
        exams=[_exam(exam, at) for exam in found.exams],
        counts=await active_counts(request, engine, whose),
        here=found.here or None,
        previous=found.previous or None,
        next=found.next or None,
    )


async def _views(request: Ask, email: str) -> ViewList:
    found = await views_of(engine_of(request).ledger, email)
    return ViewList(views=list(found.views), first=found.view)


@get("/api/views")
async def api_views(request: Ask) -> ViewList:
    """The caller's own views of the list."""
    return await _views(request, (await signed_in(request)).person.email)


@post("/api/views")
async def api_save_view(request: Ask, data: JSONBody[NewView]) -> ViewList:
    """Keep a view under a name; a search is not kept."""
    email = (await signed_in(request)).person.email
    said: dict[str, Any] = msgspec.to_builtins(data.filters)
    kept = {name: text for name, text in said.items() if text}
    await save_view(engine_of(request).ledger, email, data.name, kept)
    return await _views(request, email)


async def _own(request: Ask, key: str) -> str:
    email = (await signed_in(request)).person.email
    if key and (await views_of(engine_of(request).ledger, email)).get(key) is None:
        raise NotFoundException("no such view")
    return email


@patch("/api/views")
async def api_first_view(request: Ask, data: JSONBody[FirstView]) -> ViewList:
    """Open the list with a view from now on, or with none."""
    email = await _own(request, data.first)
    await choose_view(engine_of(request).ledger, email, data.first)
    return await _views(request, email)


@delete("/api/views/{key:str}", status_code=204)
async def api_remove_view(request: Ask, key: FromPath[str]) -> None:
    """Forget a view."""
    email = await _own(request, key)
    await remove_view(engine_of(request).ledger, email, key)


HANDLERS = [api_active, api_views, api_save_view, api_first_view, api_remove_view]
