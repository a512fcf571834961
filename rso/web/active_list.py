"""The Active patient list: who waits, for how long, and how far their images have come."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, ServerSentEvent, Template

from rso.core.errors import ConfigError
from rso.core.exam import ExamStatus, Priority
from rso.core.number import format_number
from rso.engine.context import Engine
from rso.ledger.active import ACTIVE, SORTS, Filters, Found, count_active, find_active
from rso.ledger.exams import now
from rso.ledger.holds import open_holds
from rso.ledger.lists import facilities_of
from rso.ledger.preferences import Views, choose_view, remove_view, save_view, views_of
from rso.ledger.sessions import session_key
from rso.web.auth import COOKIE, Identity, checked_form, engine_of, signed_in
from rso.web.live import Live
from rso.web.page import page
from rso.web.words import ago_words, clock_words, event_words

__all__ = ["HANDLERS", "active_counts", "is_done"]

Ask = Request[Any, Any, Any]
_PAGE = 50
_COUNT_SECONDS = 3.0
_OWNERS = ("technician", "coordinator", "admin")
MODALITIES = ("CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "RF", "US", "XA")
# What a view keeps; a search is typed anew each time.
_KEPT = ("status", "facility", "priority", "modality", "owner", "sort")
_GROUPS = {"trouble": "Needs a person", "overdue": "Overdue", "": "In time",
           "delivered": "Delivered"}  # fmt: skip


def _filters(form: dict[str, str], me: Identity) -> Filters:
    """What a form asks for; words that mean nothing are left out."""
    priority, status, sort = form.get("priority"), form.get("status", ""), form.get("sort", "")
    owners = {"mine": me.person.email, "nobody": "-"}
    return Filters(
        search=form.get("search", "")[:100],
        status=status if status in set(ExamStatus) else "",
        facility=form.get("facility", ""),
        rank=Priority(priority).rank if priority in set(Priority) else None,
        modality=form.get("modality", ""),
        owner=owners.get(form.get("owner", ""), ""),
        sort=sort if sort in SORTS else "urgency",
    )


def is_done(row: dict[str, Any]) -> bool:
    """Whether an exam's clock runs no more."""
    return row["status"] not in ACTIVE[:3]


def _shown(found: Found, at: datetime) -> dict[str, Any]:
    row = found.row
    done = is_done(row)
    due = row["due_at"]
    word, when = event_words(row)
    return {
        **row,
        "group": _GROUPS[found.group],
        "shown": format_number(row["number"]),
        "done": done,
        "overdue": not done and due < at,
        "clock": "" if done else clock_words(int((due - at).total_seconds() // 60)),
        "word": word,
        "when": when,
        "ago": ago_words(at - when),
        "flags": msgspec.json.decode(row["flags"], type=list[str]),
    }


def _only(wanted: Filters, form: dict[str, str]) -> list[str]:
    """What the list is narrowed to, in words: nobody takes a part of it for the whole."""
    owner = {"mine": "yours", "nobody": "nobody's"}.get(form.get("owner", ""), "")
    priority = "" if wanted.rank is None else ("STAT", "urgent", "routine")[wanted.rank]
    words = (wanted.status, wanted.facility, priority, wanted.modality, owner)
    return [word for word in words if word]


async def _list(request: Ask, me: Identity, form: dict[str, str]) -> dict[str, Any]:
    """What the list shows."""
    engine, at = engine_of(request), now()
    wanted = _filters(form, me)
    found = await find_active(
        engine.ledger, me.person.facilities, wanted, at=at, limit=_PAGE,
        cursor=form.get("to", form.get("cursor", "")),
    )  # fmt: skip
    there = bool(found.exams) or bool(await facilities_of(engine.ledger, me.person.facilities))
    return {
        "facility_there": there,
        "rows": [_shown(exam, at) for exam in found.exams],
        "grouped": wanted.sort == "urgency" and not wanted.search and not wanted.status,
        "page": found,
        "holds": await open_holds(engine.ledger, me.person.facilities),
        "counts": await active_counts(request, engine, me.person.facilities),
        "search": wanted.search,
        "only": _only(wanted, form),
        "can_claim": me.person.role in _OWNERS,
        "at": at,
    }


async def active_counts(
    request: Ask, engine: Engine, facilities: Sequence[str] | None
) -> dict[str, int]:
    """Active exams by status; counted for all at once, and no more often than every few seconds."""
    state = request.app.state
    counted_at, counts = state.get("active_counts", (0.0, {}))
    if time.monotonic() - counted_at > _COUNT_SECONDS:
        counts = await count_active(engine.ledger)
        state.active_counts = (time.monotonic(), counts)
    total = dict.fromkeys(ACTIVE, 0)
    for (facility, status), count in counts.items():
        if facilities is None or facility in facilities:
            total[status] += count
    return total


async def _page(
    request: Ask,
    me: Identity,
    form: dict[str, str],
    views: Views,
    view: str = "",
    **more: Any,
) -> Template:
    ledger = engine_of(request).ledger
    return page(
        request,
        "exams.html",
        me,
        states=[status.value for status in ExamStatus],
        modalities=MODALITIES,
        facilities=await facilities_of(ledger, me.person.facilities),
        form=form,
        views=views,
        view=view,
        **more,
        **await _list(request, me, form),
    )


@get("/")
async def exam_list(request: Ask, view: FromQuery[str | None] = None) -> Template:
    """The Active patient list, as one's own view of it says."""
    me = await signed_in(request)
    views = await views_of(engine_of(request).ledger, me.person.email)
    chosen = views.get(views.view if view is None else view)
    if chosen is None:
        return await _page(request, me, {}, views)
    return await _page(request, me, chosen.filters, views, chosen.key)


@post("/", status_code=200)
async def exam_search(request: Ask) -> Template:
    """The list for a browser without scripts: the whole page, the search posted."""
    me = await signed_in(request)
    views = await views_of(engine_of(request).ledger, me.person.email)
    return await _page(request, me, await checked_form(request), views)


@post("/exams/rows", status_code=200)
async def exam_rows(request: Ask) -> Template:
    """The list's rows alone; the search is posted, so that no name stands in a URL."""
    me = await signed_in(request)
    return page(
        request, "exam_rows.html", me, **await _list(request, me, await checked_form(request))
    )


@post("/views/{action:str}", status_code=303)
async def change_views(request: Ask, action: FromPath[str]) -> Redirect | Template:
    """Keep the list as it is filtered under a name, forget a view, or open with one.

    The list again, filtered as it was, where a view cannot be kept.
    """
    me = await signed_in(request)
    form = await checked_form(request)
    ledger, email = engine_of(request).ledger, me.person.email
    key = form.get("view", "")
    if action == "save":
        kept = {name: form[name] for name in _KEPT if form.get(name)}
        try:
            key = await save_view(ledger, email, form.get("name", ""), kept)
        except ConfigError as exc:
            made = await _page(
                request, me, kept, await views_of(ledger, email), problem=f"{exc}".capitalize(),
                view_name=form.get("name", ""),
            )  # fmt: skip
            made.status_code = 409
            return made
    elif action == "remove":
        await remove_view(ledger, email, key)
        key = ""
    else:
        await choose_view(ledger, email, key)
    return Redirect(f"/?view={key}", status_code=303)


@get("/events")
async def events(request: Ask) -> Response[Any]:
    """Word of changes, for as long as the session lasts; see ``rso.web.live``."""
    me = await signed_in(request)
    live: Live = request.app.state.live
    secret = request.cookies.get(COOKIE, "")
    stream = live.open(session_key(secret), me.person)
    return ServerSentEvent(live.messages(stream), headers={"Cache-Control": "no-store"})


HANDLERS = [exam_list, exam_search, exam_rows, change_views, events]
