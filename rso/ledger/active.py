"""The Active patient list: a page of it in any order, found through an index however many wait.

A page begins behind a place of the list (its cursor) and takes from the next segment when one is
used up. The page before it is found from the same place, the other way.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rso.ledger.active_cursor import Cursor, read_cursor
from rso.ledger.active_order import ACTIVE, ACTIVE_SQL, SORTS, Filters, segments_of
from rso.ledger.active_walk import Walk
from rso.ledger.audit import EVENTS
from rso.ledger.ledger import Ledger

__all__ = ["ACTIVE", "SORTS", "Filters", "Found", "Page", "count_active", "find_active"]


class Found(Struct, frozen=True, kw_only=True):
    """An exam of a page: its row, and the word for why it stands where it stands."""

    group: str
    row: dict[str, Any]


class Page(Struct, frozen=True, kw_only=True):
    """A page of the list.

    Attributes:
        here: The cursor of this page, for another look at it; empty at the top of the list.
        previous: The cursor of the page before it, empty where this is the first.
        next: The cursor of the page that follows, empty at the end.
    """

    exams: list[Found]
    here: str = ""
    previous: str = ""
    next: str = ""


async def find_active(
    ledger: Ledger,
    facilities: Sequence[str] | None,
    wanted: Filters,
    *,
    at: datetime,
    cursor: str = "",
    limit: int = 50,
) -> Page:
    """A page of the list, within ``facilities`` (``None`` means all).

    In the order of urgency: what needs a person, what is overdue, then STAT, urgent and routine by
    the time that is left, then what is delivered. Where a page's exams have all left the list, it
    is the page before them; where fewer than a page stand before a page, it is the first.
    """
    if wanted.facility:
        known = facilities is None or wanted.facility in facilities
        facilities = [wanted.facility] if known else []
    if facilities is not None and not facilities:
        return Page(exams=[])
    walk = await Walk.begin(ledger, facilities, wanted, segments_of(wanted, at))
    start = read_cursor(cursor, walk.segments, trouble=wanted.by_urgency)
    keys = list[Cursor]()
    if start is not None and not start.back:
        keys = await walk.keys(start, limit + 1)
        if not keys:
            start = replace(start, back=True)
    if start is not None and start.back:
        before = await walk.keys(start, limit + 1)
        start = replace(before[limit], back=False) if len(before) > limit else None
    keys = keys or await walk.keys(start, limit + 1)
    shown = keys[:limit]
    rows = await _rows(ledger, [key.id for key in shown])
    exams = [Found(group=walk.group(k), row=rows[k.id]) for k in shown if k.id in rows]
    return Page(
        exams=exams,
        here=start.text() if start else "",
        previous=replace(start, back=True).text() if start else "",
        next=shown[-1].text() if len(keys) > limit else "",
    )


async def _rows(ledger: Ledger, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The exams of a page with all that a row shows, by key."""
    if not keys:
        return {}
    marks = ",".join("?" * len(keys))
    rows = await ledger.fetch(
        "SELECT e.*, (SELECT min(d.acknowledged) FROM delivery d WHERE d.exam = e.id)"  # noqa: S608
        " AS delivered, (SELECT count(*) FROM delivery d WHERE d.exam = e.id AND"
        " d.state = 'stopped') AS stopped, (SELECT count(*) FROM study s JOIN hold h ON"
        " h.study = s.id AND h.state = 'open' WHERE s.exam = e.id) AS held,"
        f" (SELECT max(a.id) FROM audit a WHERE a.exam = e.number AND {EVENTS}) AS word"
        f" FROM exam e WHERE e.id IN ({marks})",
        *keys,
    )
    words = [row["word"] for row in rows if row["word"] is not None]
    said = {row["id"]: row for row in await _said(ledger, words)}
    return {row["id"]: {**row, "said": said.get(row["word"])} for row in rows}


async def _said(ledger: Ledger, words: Sequence[Any]) -> list[dict[str, Any]]:
    if not words:
        return []
    marks = ",".join("?" * len(words))
    return await ledger.fetch(
        f"SELECT id, at, actor, action FROM audit WHERE id IN ({marks})",  # noqa: S608
        *words,
    )


async def count_active(ledger: Ledger) -> dict[tuple[str, str], int]:
    """How many active exams there are, by facility and status."""
    rows = await ledger.fetch(
        f"SELECT facility, status, count(*) AS n FROM exam WHERE {ACTIVE_SQL}"  # noqa: S608
        " GROUP BY facility, status"
    )
    return {(row["facility"], row["status"]): row["n"] for row in rows}
