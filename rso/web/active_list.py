"""The Active patient list: who waits, for how long, and how far their images have come."""

from typing import Any

from litestar import Request, get, post
from litestar.response import Template

from rso.core.number import format_number
from rso.ledger.exams import now
from rso.ledger.holds import find_holds
from rso.ledger.lists import active_exams, facilities_of
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS", "clock_words"]

Ask = Request[Any, Any, Any]
_STATES = ("requested", "receiving", "settled", "delivered")


async def _list(request: Ask, me: Identity, form: dict[str, str]) -> dict[str, Any]:
    """What the list shows: overdue first, then by urgency and the time that is left."""
    engine = engine_of(request)
    facilities = me.person.facilities
    status = form.get("status", "")
    rows = await active_exams(
        engine.ledger,
        facilities,
        search=form.get("search", ""),
        status=status if status in _STATES else "",
        facility=form.get("facility", ""),
    )
    at = now()
    shown = []
    for row in rows:
        spent = int((at - row["created_at"]).total_seconds() // 60)
        left = engine.settings.turnaround.minutes(row["priority"]) - spent
        done = row["status"] == "delivered"
        clock = "" if done else clock_words(left)
        order = (done, left >= 0, row["priority"], left)
        shown.append(
            {**row, "shown": format_number(row["number"]), "clock": clock,
             "overdue": not done and left < 0, "order": order}
        )  # fmt: skip
    return {
        "rows": sorted(shown, key=lambda row: row["order"]),
        "holds": await find_holds(engine.ledger, facilities=facilities),
        "search": form.get("search", ""),
        "filtered": bool(status or form.get("facility")),
        "truncated": len(rows) >= 200,
    }


def clock_words(minutes: int) -> str:
    """Time left, or over, as people say it: ``1 h 20 min left``."""
    word = "left" if minutes >= 0 else "over"
    hours, rest = divmod(abs(minutes), 60)
    if hours >= 48:
        return f"{hours // 24} days {word}"
    return f"{hours} h {rest} min {word}" if hours else f"{rest} min {word}"


@get("/")
async def exam_list(request: Ask) -> Template:
    """The Active patient list."""
    me = await signed_in(request)
    facilities = await facilities_of(engine_of(request).ledger, me.person.facilities)
    shown = await _list(request, me, {})
    return page(request, "exams.html", me, states=_STATES, facilities=facilities, **shown)


@post("/exams/rows", status_code=200)
async def exam_rows(request: Ask) -> Template:
    """The list's rows alone; the search is posted, so that no name stands in a URL."""
    me = await signed_in(request)
    return page(
        request, "exam_rows.html", me, **await _list(request, me, await checked_form(request))
    )


HANDLERS = [exam_list, exam_rows]
