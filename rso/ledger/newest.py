"""Exams in the order in which they were made, the newest first; a page of them from an exam on."""

from collections.abc import Sequence
from typing import Any

from rso.ledger.active_order import Filters
from rso.ledger.exam_fits import few_fit, fitting_sql
from rso.ledger.ledger import Ledger

__all__ = ["newest_exams"]

_MOST_APART = 20  # facilities that are each looked up in the index
_COLUMNS = "id, number, status, facility, origin, instances"


async def newest_exams(
    ledger: Ledger,
    facilities: Sequence[str] | None,
    *,
    status: str = "",
    rank: int | None = None,
    after: str = "",
    until: str = "",
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Exams within ``facilities`` (``None`` means all), in any state without ``status``.

    ``after`` and ``until`` are keys: only older ones, or that exam and those made just after it.
    """
    if facilities is not None and not facilities:
        return []
    way = "ASC" if until else "DESC"
    order, last = f"ORDER BY id {way}", [] if limit is None else [limit]
    order += " LIMIT ?" if last else ""
    where, values = "", list[Any]()
    for key, sign in ((after, "<"), (until, ">=")):
        if key:
            where, values = f"{where} AND id {sign} ?", [*values, key]
    wanted = Filters(status=status, rank=rank)
    if status and await few_fit(ledger, facilities, wanted):
        fitting, some = fitting_sql(ledger, facilities, wanted)
        sql, values = f"SELECT {_COLUMNS} FROM {fitting}{where} {order}", [*some, *values, *last]  # noqa: S608
    else:
        for column, value in (("status", status), ("priority", rank)):
            if value not in {None, ""}:
                where, values = f"{where} AND {column} = ?", [*values, value]
        sql, values = _along(ledger, facilities, where, values, order, last)
    rows = await ledger.fetch(sql, *values)
    return rows[::-1] if until else rows


def _along(
    ledger: Ledger,
    facilities: Sequence[str] | None,
    where: str,
    values: list[Any],
    order: str,
    last: list[int],
) -> tuple[str, list[Any]]:
    """Along the index of each facility, where they are not too many."""
    if facilities is None:
        return f"SELECT {_COLUMNS} FROM exam WHERE number <> ''{where} {order}", [*values, *last]  # noqa: S608
    if len(facilities) > _MOST_APART:
        marks = ",".join("?" * len(facilities))
        return (
            f"SELECT {_COLUMNS} FROM exam WHERE facility IN ({marks}){where} {order}",  # noqa: S608
            [*facilities, *values, *last],
        )
    hint = " INDEXED BY exam_newest_of" if ledger.kind == "sqlite" else ""
    parts = " UNION ALL ".join(
        f"SELECT * FROM (SELECT {_COLUMNS} FROM exam{hint} WHERE number <> '' AND facility = ?"  # noqa: S608
        f"{where} {order}) AS p{i}"
        for i in range(len(facilities))
    )
    return f"{parts} {order}", [v for f in facilities for v in (f, *values, *last)] + last
