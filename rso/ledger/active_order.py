"""The Active patient list's orders: what is asked for, and the segments that the list is a row of.

Each segment has an order of its own, by one column and then by key, and an index that gives it.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct

from rso.core.names import search_key
from rso.core.number import is_valid, read_prefix

__all__ = ["ACTIVE", "ACTIVE_SQL", "SORTS", "Filters", "Segment", "filter_sql", "segments_of"]

ACTIVE = ("requested", "receiving", "settled", "delivered")
ACTIVE_SQL = "status IN ('requested', 'receiving', 'settled', 'delivered')"
SORTS = ("urgency", "newest", "oldest", "name")
_OPEN_SQL = "status IN ('requested', 'receiving', 'settled')"
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

    @property
    def by_urgency(self) -> bool:
        """What needs a person stands first."""
        return self.sort == "urgency" and not self.search and not self.status

    @property
    def whole_number(self) -> bool:
        """The search is for one exam, wherever it stands."""
        return is_valid(read_prefix(self.search))


class Segment(Struct, frozen=True, kw_only=True):
    """A part of the list in one order.

    Attributes:
        group: The word for why its exams stand there.
        order: A column, with its collation.
        index: Gives the order. SQLite is told: it has no statistics and would guess.
        index_of: Gives the order within a facility; empty: there is none.
    """

    group: str
    where: str
    order: str
    index: str
    index_of: str = ""
    values: tuple[Any, ...] = ()
    descending: bool = False

    @property
    def column(self) -> str:
        """What it is ordered by."""
        return self.order.split()[0]


def segments_of(wanted: Filters, at: datetime) -> list[Segment]:
    """The list in its order; what was due before ``at`` is overdue."""
    if wanted.search:
        return _searches(wanted)
    if wanted.sort == "name":
        index = "exam_named" if wanted.status in {"", *ACTIVE} else "exam_find_name"
        return [
            Segment(group="", where=_state(wanted), order="name_key COLLATE BINARY", index=index)
        ]  # fmt: skip
    done = wanted.status not in {"", *ACTIVE[:3]}
    if done or wanted.sort in {"newest", "oldest"}:
        return [_by_age(wanted)]
    ranks = range(3) if wanted.rank is None else (wanted.rank,)
    open_ = [
        Segment(
            group=group, where=f"{_OPEN_SQL} AND priority = {rank} AND due_at {sign} ?",
            order="due_at", index="exam_due", index_of="exam_due_of", values=(at,),
        )
        for group, sign in (("overdue", "<"), ("", ">="))
        for rank in ranks
    ]  # fmt: skip
    delivered = Segment(
        group="delivered", where="status = 'delivered'", order="created_at", descending=True,
        index="exam_status", index_of="exam_active",
    )  # fmt: skip
    return open_ if wanted.status else [*open_, delivered]


def _state(wanted: Filters) -> str:
    """A state, with what an index of active exams wants to hear."""
    if wanted.status and wanted.status not in ACTIVE:
        return f"status = '{wanted.status}'"
    return f"{ACTIVE_SQL} AND status = '{wanted.status}'" if wanted.status else ACTIVE_SQL


def _by_age(wanted: Filters) -> Segment:
    index, index_of = ("exam_made", "exam_made_of")
    if wanted.status:
        index, index_of = ("exam_status", "exam_active")
    return Segment(
        group="", where=_state(wanted), order="created_at", index=index, index_of=index_of,
        descending=wanted.sort != "oldest",
    )  # fmt: skip


def _searches(wanted: Filters) -> list[Segment]:
    """By number, then by Patient ID, then by name; what a former one finds is not found again."""
    number, name = read_prefix(wanted.search), search_key(wanted.search)
    if wanted.whole_number:
        return [
            Segment(group="", where="number = ?", order="created_at", index="exam_number",
                    values=(number,))
        ]  # fmt: skip
    made, before = list[Segment](), ""
    for column, text, index in (
        ("number", number, "exam_find_number"),
        ("patient_id", wanted.search, "exam_find_patient_id"),
        ("name_key", name, "exam_find_name"),
    ):
        if not text:
            continue
        begins = f"{column} COLLATE BINARY >= ? AND {column} COLLATE BINARY < ?"
        earlier = tuple(v for segment in made for v in segment.values[:2])
        made.append(
            Segment(
                group="", where=f"{_state(wanted)} AND {begins}{before}",
                order=f"{column} COLLATE BINARY", index=index,
                values=(text, text + _LAST, *earlier),
            )
        )  # fmt: skip
        before += f" AND NOT ({begins})"
    return made


def filter_sql(wanted: Filters) -> tuple[str, list[Any]]:
    """What else has to be so, each with ``AND`` before it."""
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
