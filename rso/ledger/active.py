"""The Active patient list: a page of it in any order, found through an index however many wait.

A list is a row of *segments*, each with its own order. A page begins behind an exam of a segment
(the key of the exam is the cursor) and takes from the next segment when one is used up.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from rso.core.names import search_key
from rso.core.number import is_valid, read_prefix
from rso.ledger.ledger import Ledger

__all__ = ["ACTIVE", "SORTS", "Filters", "Found", "Page", "count_active", "find_active"]

ACTIVE = ("requested", "receiving", "settled", "delivered")
SORTS = ("urgency", "newest", "oldest", "name")
_OPEN_SQL = "status IN ('requested', 'receiving', 'settled')"
_ACTIVE_SQL = "status IN ('requested', 'receiving', 'settled', 'delivered')"
_MOST_WITH_OWN_SEARCH = 20  # facilities that are each looked up in the index
_MOST_TROUBLED = 500
_TROUBLE = -1  # in place of a segment's index
_LIMIT = object()  # stands for the limit among the values of a part
_LAST = "\U0010ffff"


class Filters(Struct, frozen=True, kw_only=True):
    """What somebody wants to see.

    Attributes:
        search: The beginning of an exam number, a Patient ID or a name.
        status: A status, also one that is not active any more; empty: every active one.
        owner: An address; ``-`` means nobody's.
        rank: Of a priority, 0 for STAT.
    """

    search: str = ""
    status: str = ""
    facility: str = ""
    rank: int | None = None
    modality: str = ""
    owner: str = ""
    sort: str = "urgency"


class Found(Struct, frozen=True, kw_only=True):
    """An exam of a page: its row, and the word for why it stands where it stands."""

    group: str
    row: dict[str, Any]


class Page(Struct, frozen=True, kw_only=True):
    """A page of the list; ``after`` is the cursor of the next one, empty at the end."""

    exams: list[Found]
    after: str


class _Segment(Struct, frozen=True, kw_only=True):
    group: str
    where: str
    order: str  # a column, with its collation
    values: tuple[Any, ...] = ()
    descending: bool = False
    by_facility: bool = True  # the index begins with the facility

    @property
    def column(self) -> str:
        return self.order.split()[0]


def _segments(wanted: Filters, at: datetime) -> list[_Segment]:
    if wanted.search:
        return _searches(wanted)
    state = f"status = '{wanted.status}'" if wanted.status else _ACTIVE_SQL
    if wanted.sort == "name":
        return [
            _Segment(group="", where=_ACTIVE_SQL, order="name_key COLLATE BINARY",
                     by_facility=False)
        ]  # fmt: skip
    done = wanted.status not in {"", *ACTIVE[:3]}
    if done or wanted.sort in {"newest", "oldest"}:
        return [
            _Segment(group="", where=state, order="created_at",
                     descending=wanted.sort != "oldest")
        ]  # fmt: skip
    ranks = range(3) if wanted.rank is None else (wanted.rank,)
    open_ = [
        _Segment(
            group=group, where=f"{_OPEN_SQL} AND priority = {rank} AND due_at {sign} ?",
            order="due_at", values=(at,),
        )
        for group, sign in (("overdue", "<"), ("", ">="))
        for rank in ranks
    ]  # fmt: skip
    delivered = _Segment(
        group="delivered", where="status = 'delivered'", order="created_at", descending=True
    )
    return open_ if wanted.status else [*open_, delivered]


def _searches(wanted: Filters) -> list[_Segment]:
    """By number, then by Patient ID, then by name; what a former one finds is not found again."""
    number, name = read_prefix(wanted.search), search_key(wanted.search)
    if is_valid(number):  # one exam, wherever it stands
        return [_Segment(group="", where="number = ?", order="created_at", values=(number,))]
    state = f"status = '{wanted.status}'" if wanted.status else _ACTIVE_SQL
    made, before = list[_Segment](), ""
    for column, text in (("number", number), ("patient_id", wanted.search), ("name_key", name)):
        if not text:
            continue
        begins = f"{column} COLLATE BINARY >= ? AND {column} COLLATE BINARY < ?"
        earlier = tuple(v for segment in made for v in segment.values[:2])
        made.append(
            _Segment(
                group="", where=f"{state} AND {begins}{before}",
                order=f"{column} COLLATE BINARY", values=(text, text + _LAST, *earlier),
                by_facility=False,
            )
        )  # fmt: skip
        before += f" AND NOT ({begins})"
    return made


def _filter_sql(wanted: Filters) -> tuple[str, list[Any]]:
    where, values = "", list[Any]()
    owner = "" if wanted.owner == "-" else wanted.owner
    for column, value in (
        ("status", wanted.status),
        ("modality", wanted.modality),
        ("priority", wanted.rank),
        ("owner", owner if wanted.owner else None),
    ):
        if value not in {None, ""} or (column == "owner" and value is not None):
            where, values = f"{where} AND {column} = ?", [*values, value]
    return where, values


def _sql(
    segment: _Segment,
    wanted: Filters,
    facilities: Sequence[str] | None,
    anchor: Mapping[str, Any] | None,
) -> tuple[str, list[Any]]:
    """The keys of a segment's exams, in order; a last ``?`` is the limit."""
    way, sign = ("DESC", "<") if segment.descending else ("ASC", ">")
    where, more = _filter_sql(wanted)
    where, values = segment.where + where, [*segment.values, *more]
    if anchor is not None:
        where += f" AND ({segment.order}, id) {sign} (?, ?)"
        values += [anchor[segment.column], anchor["id"]]
    order = f"ORDER BY k {way}, id {way} LIMIT ?"
    one = f"SELECT id, {segment.order} AS k FROM exam WHERE {where}"  # noqa: S608
    if facilities is None:
        return f"{one} {order}", values
    if len(facilities) == 1:
        return f"{one} AND facility = ? {order}", [*values, *facilities]
    if segment.by_facility and len(facilities) <= _MOST_WITH_OWN_SEARCH:
        # Each facility's part comes in order from its index; the parts are merged.
        parts = " UNION ALL ".join(
            f"SELECT * FROM ({one} AND facility = ? {order}) AS p{i}"  # noqa: S608
            for i in range(len(facilities))
        )
        every = [v for f in facilities for v in (*values, f, _LIMIT)]
        return f"{parts} {order}", every
    marks = ",".join("?" * len(facilities))
    return f"{one} AND facility IN ({marks}) {order}", [*values, *facilities]


async def find_active(
    ledger: Ledger,
    facilities: Sequence[str] | None,
    wanted: Filters,
    *,
    at: datetime,
    after: str = "",
    limit: int = 50,
) -> Page:
    """A page of the list, within ``facilities`` (``None`` means all).

    In the order of urgency: what needs a person, what is overdue, then STAT, urgent and routine by
    the time that is left, then what is delivered.
    """
    if wanted.facility:
        known = facilities is None or wanted.facility in facilities
        facilities = [wanted.facility] if known else []
    if facilities is not None and not facilities:
        return Page(exams=[], after="")
    by_urgency = wanted.sort == "urgency" and not wanted.search and not wanted.status
    troubled = await _troubled(ledger, facilities, wanted) if by_urgency else []
    segments = _segments(wanted, at)
    start, anchor = await _anchor(ledger, after, facilities, len(segments))
    rest = _rest(troubled, after)
    keys = [(_TROUBLE, key) for key in rest]
    for index in range(start, len(segments)):
        if len(keys) > limit:
            break
        asked = limit + 1 - len(keys) + len(troubled)
        sql, values = _sql(segments[index], wanted, facilities, anchor)
        found = await ledger.fetch(
            sql, *[asked if value is _LIMIT else value for value in values], asked
        )
        keys += [(index, row["id"]) for row in found if row["id"] not in troubled]
        anchor = None
    shown = keys[:limit]
    last = f"{shown[-1][0]}:{shown[-1][1]}" if len(keys) > limit else ""
    rows = await _rows(ledger, [key for _, key in shown])
    groups = ["trouble" if i == _TROUBLE else segments[i].group for i, _ in shown]
    exams = [
        Found(group=g, row=rows[k]) for g, (_, k) in zip(groups, shown, strict=True) if k in rows
    ]
    return Page(exams=exams, after=last)


def _rest(troubled: Sequence[str], after: str) -> list[str]:
    """What of the troubled ones a page still has to show."""
    index, _, key = after.partition(":")
    if not after:
        return list(troubled)
    if index == str(_TROUBLE) and key in troubled:
        return list(troubled[troubled.index(key) + 1 :])
    return []


async def _anchor(
    ledger: Ledger, after: str, facilities: Sequence[str] | None, segments: int
) -> tuple[int, dict[str, Any] | None]:
    """Where a page begins: the segment, and the exam that it begins behind."""
    index, _, key = after.partition(":")
    if not index.isdecimal() or int(index) >= segments:
        return 0, None
    try:
        plain = str(UUID(key))
    except ValueError:
        return 0, None
    rows = await ledger.fetch(
        "SELECT id, facility, due_at, created_at, name_key, patient_id, number FROM exam"
        " WHERE id = ?",
        plain,
    )
    if not rows or (facilities is not None and rows[0]["facility"] not in facilities):
        return 0, None
    return int(index), rows[0]


async def _troubled(ledger: Ledger, facilities: Sequence[str] | None, wanted: Filters) -> list[str]:
    """Active exams with an open hold or a stopped delivery, the most urgent first."""
    where, values = _filter_sql(wanted)
    if facilities is not None:
        where += f" AND facility IN ({','.join('?' * len(facilities))})"
        values += facilities
    rows = await ledger.fetch(
        "SELECT id FROM exam WHERE id IN (SELECT s.exam FROM hold h JOIN study s"  # noqa: S608
        " ON s.id = h.study WHERE h.state = 'open' UNION SELECT exam FROM delivery"
        f" WHERE state = 'stopped') AND {_ACTIVE_SQL}{where} ORDER BY priority, due_at, id LIMIT ?",
        *values,
        _MOST_TROUBLED,
    )
    return [row["id"] for row in rows]


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
        f" (SELECT max(a.id) FROM audit a WHERE a.exam = e.number) AS word FROM exam e"
        f" WHERE e.id IN ({marks})",
        *keys,
    )
    words = [row["word"] for row in rows if row["word"] is not None]
    marks = ",".join("?" * len(words)) or "NULL"
    said = {
        row["id"]: row
        for row in await ledger.fetch(
            f"SELECT id, at, actor, action FROM audit WHERE id IN ({marks})",  # noqa: S608
            *words,
        )
    }
    return {row["id"]: {**row, "said": said.get(row["word"])} for row in rows}


async def count_active(ledger: Ledger) -> dict[tuple[str, str], int]:
    """How many active exams there are, by facility and status."""
    rows = await ledger.fetch(
        f"SELECT facility, status, count(*) AS n FROM exam WHERE {_ACTIVE_SQL}"  # noqa: S608
        " GROUP BY facility, status"
    )
    return {(row["facility"], row["status"]): row["n"] for row in rows}
