"""The places of the Active patient list's exams, from any of them on, forwards and backwards."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rso.ledger.active_cursor import TROUBLE, Cursor, place_text
from rso.ledger.active_order import ACTIVE_SQL, Filters, Segment, filter_sql
from rso.ledger.exam_fits import few_fit, fitting_sql
from rso.ledger.ledger import Ledger

__all__ = ["Walk"]

_MOST_APART = 20  # facilities that are each looked up in the index
_MOST_TROUBLED = 500
_LIMIT = object()  # stands for the limit among the values of a part
_KEY = "id, status, priority, due_at, created_at, name_key, patient_id, number"


class Walk:
    """A list as it is asked for.

    Attributes:
        segments: What it is a row of, behind the exams that need a person.
    """

    def __init__(
        self,
        ledger: Ledger,
        facilities: Sequence[str] | None,
        wanted: Filters,
        segments: Sequence[Segment],
        troubled: Sequence[Cursor],
        *,
        few: bool,
    ) -> None:
        self._ledger = ledger
        self._facilities = facilities
        self._wanted = wanted
        self.segments = segments
        self._troubled = troubled
        self._above = {key.id for key in troubled}  # these do not stand in their segments
        self._few = few

    @classmethod
    async def begin(
        cls,
        ledger: Ledger,
        facilities: Sequence[str] | None,
        wanted: Filters,
        segments: Sequence[Segment],
    ) -> "Walk":
        """See what stands above the segments, and from which side they are found."""
        troubled = await _troubled(ledger, facilities, wanted) if wanted.by_urgency else []
        few = not wanted.whole_number and await few_fit(ledger, facilities, wanted)
        return cls(ledger, facilities, wanted, segments, troubled, few=few)

    def group(self, key: Cursor) -> str:
        """Why an exam stands where it stands."""
        return "trouble" if key.segment == TROUBLE else self.segments[key.segment].group

    async def keys(self, start: Cursor | None, count: int) -> list[Cursor]:
        """So many exams from a place on, in the place's way; from the top without one."""
        back = start is not None and start.back
        order = [TROUBLE, *range(len(self.segments))][:: -1 if back else 1]
        if start is not None:
            order = order[order.index(start.segment) :]
        # What fits is fetched once for all segments, where it is little.
        steps = [[i] for i in order]
        if self._few:
            steps = [list(some) for _, some in groupby(order, TROUBLE.__eq__)]
        found = list[Cursor]()
        for step in steps:
            if len(found) >= count:
                break
            if step == [TROUBLE]:
                found += self._above_segments(start)
            else:
                found += await self._in_segments(step, start, count - len(found))
        return found[:count]

    def _above_segments(self, start: Cursor | None) -> list[Cursor]:
        if start is None or start.segment != TROUBLE:
            return list(self._troubled[:: -1 if start is not None and start.back else 1])
        if start.back:
            return [key for key in self._troubled[::-1] if key.key <= start.key]
        return [key for key in self._troubled if key.key > start.key]

    async def _in_segments(
        self, step: Sequence[int], start: Cursor | None, count: int
    ) -> list[Cursor]:
        back = start is not None and start.back
        asked = count + len(self._troubled)
        if self._few:
            sql, values = self._few_sql(step, start, back=back)
        else:
            sql, values = self._walk_sql(step[0], start, back=back)
        rows = await self._ledger.fetch(
            sql, *[asked if value is _LIMIT else value for value in values], asked
        )
        return [
            Cursor(False, row["s"], self.segments[row["s"]].column, place_text(row["k"]), row["id"])
            for row in rows
            if row["id"] not in self._above
        ]

    def _part(
        self, index: int, source: str, start: Cursor | None, *, back: bool
    ) -> tuple[str, str, list[Any]]:
        """A segment's exams from a place on, and the way in which they are in order."""
        segment = self.segments[index]
        descending = segment.descending != back
        where, values = segment.where, list[Any](segment.values)
        if start is not None and start.segment == index:
            sign = ("<" if descending else ">") + ("=" if back else "")
            where += f" AND ({segment.order}, id) {sign} (?, ?)"
            values += start.key
        way = "DESC" if descending else "ASC"
        sql = f"SELECT id, {segment.order} AS k, {index} AS s FROM {source} WHERE {where}"  # noqa: S608
        return sql, way, values

    def _few_sql(
        self, step: Sequence[int], start: Cursor | None, *, back: bool
    ) -> tuple[str, list[Any]]:
        """The places of the few that fit, in all these segments; a last ``?`` is the limit."""
        fitting, every = fitting_sql(self._ledger, self._facilities, self._wanted)
        parts = []
        for index in step:
            part, way, values = self._part(index, "few", start, back=back)
            every += values
            parts.append(
                f"SELECT id, k, s, row_number() OVER (ORDER BY k {way}, id {way}) AS n"  # noqa: S608
                f" FROM ({part}) AS p{index}"
            )
        return (
            f"SELECT id, k, s FROM (WITH few AS MATERIALIZED (SELECT {_KEY} FROM {fitting})"  # noqa: S608
            f" {' UNION ALL '.join(parts)}) AS parts ORDER BY s {'DESC' if back else 'ASC'}, n"
            " LIMIT ?"
        ), every

    def _walk_sql(self, index: int, start: Cursor | None, *, back: bool) -> tuple[str, list[Any]]:
        """The places in a segment, along its index; a last ``?`` is the limit."""
        segment, facilities = self.segments[index], self._facilities
        apart = bool(segment.index_of) and len(facilities or ()) in range(1, _MOST_APART + 1)
        source = "exam"
        if self._ledger.kind == "sqlite":
            source += f" INDEXED BY {segment.index_of if apart else segment.index}"
        part, way, values = self._part(index, source, start, back=back)
        where, more = filter_sql(self._wanted)
        part, values = part + where, [*values, *more]
        order = f"ORDER BY k {way}, id {way} LIMIT ?"
        if facilities is None:
            return f"{part} {order}", values
        if not apart:
            marks = ",".join("?" * len(facilities))
            return f"{part} AND facility IN ({marks}) {order}", [*values, *facilities]
        if len(facilities) == 1:
            return f"{part} AND facility = ? {order}", [*values, *facilities]
        # Each facility's part comes in order from its index; the parts are merged.
        parts = " UNION ALL ".join(
            f"SELECT * FROM ({part} AND facility = ? {order}) AS p{i}"  # noqa: S608
            for i in range(len(facilities))
        )
        return f"{parts} {order}", [v for f in facilities for v in (*values, f, _LIMIT)]


async def _troubled(
    ledger: Ledger, facilities: Sequence[str] | None, wanted: Filters
) -> list[Cursor]:
    """Active exams with an open hold or a stopped delivery, the most urgent first."""
    where, values = filter_sql(wanted)
    if facilities is not None:
        where += f" AND facility IN ({','.join('?' * len(facilities))})"
        values += facilities
    rows = await ledger.fetch(
        "SELECT e.id, e.priority, e.due_at FROM (SELECT s.exam FROM hold h JOIN study s"  # noqa: S608
        " ON s.id = h.study WHERE h.state = 'open' UNION SELECT exam FROM delivery"
        " WHERE state = 'stopped') AS troubled CROSS JOIN exam e WHERE e.id = troubled.exam"
        f" AND {ACTIVE_SQL}{where} ORDER BY e.priority, e.due_at, e.id LIMIT ?",
        *values,
        _MOST_TROUBLED,
    )
    return [
        Cursor(False, TROUBLE, "", f"{row['priority']} {place_text(row['due_at'])}", row["id"])
        for row in rows
    ]
