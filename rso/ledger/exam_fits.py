"""Exams that fit a filter, found from the filter's side.

An order is walked along until a page is full; where next to nothing fits, that is all of it. So
the filter is asked first how many fit, up to a bound, by an index in which all of its columns are
looked up: few are fetched and sorted, many are met soon on the way.
"""

from collections.abc import Sequence
from typing import Any

from rso.ledger.active_order import ACTIVE, Filters
from rso.ledger.ledger import Ledger

__all__ = ["few_fit", "fitting_sql"]

_FEW = 500


def fitting_sql(
    ledger: Ledger, facilities: Sequence[str] | None, wanted: Filters
) -> tuple[str, list[Any]]:
    """What stands behind ``FROM`` for the exams that fit, whatever is searched for.

    State and priority are always named, all of them if need be: they stand before the other
    columns of the indexes (``m0027_list_filters`` says why a number is none that is empty). SQLite
    is told which index, as it knows no numbers of rows.
    """
    states = (wanted.status,) if wanted.status else ACTIVE
    ranks = (0, 1, 2) if wanted.rank is None else (wanted.rank,)
    where = ["number <> ''", f"status IN ({_marks(states)})", f"priority IN ({_marks(ranks)})"]
    values: list[Any] = [*states, *ranks]
    for column, value in (("modality", wanted.modality), ("owner", wanted.owner)):
        if value:
            where.append(f"{column} = ?")
            values.append("" if value == "-" else value)
    if facilities is not None:
        where.append(f"facility IN ({_marks(facilities)})")
        values += facilities
    index = "exam_fits_owner" if wanted.owner and not wanted.modality else "exam_fits"
    if facilities is not None and wanted.owner in {"", "-"}:
        index = "exam_fits_facility"
    hint = f" INDEXED BY {index}" if ledger.kind == "sqlite" else ""
    return f"exam{hint} WHERE {' AND '.join(where)}", values


async def few_fit(ledger: Ledger, facilities: Sequence[str] | None, wanted: Filters) -> bool:
    """Whether so few exams fit that all of them may be fetched."""
    fitting, values = fitting_sql(ledger, facilities, wanted)
    found = await ledger.fetch(
        f"SELECT count(*) AS n FROM (SELECT 1 AS one FROM {fitting} LIMIT {_FEW + 1}) AS fitting",  # noqa: S608
        *values,
    )
    return bool(found[0]["n"] <= _FEW)


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
