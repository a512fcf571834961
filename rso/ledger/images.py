"""An exam's or a held Study's images: Series with their counts, and single instances."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rso.ledger.aggregates import with_times
from rso.ledger.ledger import Ledger

__all__ = ["instance_of", "instances_page", "series_of", "ways_of", "with_middles"]


async def series_of(ledger: Ledger, *, exam: str = "", study: str = "") -> list[dict[str, Any]]:
    """The Series of an exam, or of one Study row, each with its counts."""
    where, value = ("s.exam = ? AND NOT i.conflict", exam) if exam else ("s.id = ?", study)
    rows = await ledger.fetch(
        "SELECT s.id AS study, s.study_instance_uid, s.description, s.study_date, s.created_at,"  # noqa: S608
        " i.series_instance_uid, min(i.series_number) AS series_number,"
        " min(i.series_description) AS series_description, min(i.modality) AS modality,"
        " count(*) AS instances, sum(i.size) AS size, min(i.received_at) AS first_at,"
        " max(i.received_at) AS last_at, count(i.purged_at) AS purged"
        f" FROM instance i JOIN study s ON s.id = i.study WHERE {where}"
        " GROUP BY s.id, s.study_instance_uid, s.description, s.study_date, s.created_at,"
        " i.series_instance_uid",
        value,
    )
    rows.sort(
        key=lambda r: (r["created_at"], len(r["series_number"]), r["series_number"],
                       r["series_instance_uid"])
    )  # fmt: skip
    return with_times(rows, "first_at", "last_at")


async def with_middles(ledger: Ledger, series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows of ``series_of``, each with the key of its ``middle`` by Instance Number.

    It is empty where all instances of a Series are held as conflicts.
    """
    if not series:
        return []
    studies = list(dict.fromkeys(str(row["study"]) for row in series))
    uids = list(dict.fromkeys(row["series_instance_uid"] for row in series))
    part = "PARTITION BY study, series_instance_uid"
    rows = await ledger.fetch(
        "SELECT id, study, series_instance_uid FROM (SELECT id, study, series_instance_uid,"  # noqa: S608
        f" row_number() OVER ({part} ORDER BY length(instance_number), instance_number, id)"
        f" AS place, count(*) OVER ({part}) AS instances FROM instance"
        f" WHERE study IN ({','.join('?' * len(studies))})"
        f" AND series_instance_uid IN ({','.join('?' * len(uids))}) AND NOT conflict) AS ranked"
        " WHERE place = (instances + 1) / 2",
        *studies,
        *uids,
    )
    middles = {(row["study"], row["series_instance_uid"]): str(row["id"]) for row in rows}
    return [
        {**row, "middle": middles.get((row["study"], row["series_instance_uid"]), "")}
        for row in series
    ]


async def instance_of(
    ledger: Ledger, instance: str, *, exam: str = "", study: str = ""
) -> dict[str, Any] | None:
    """One instance, if it belongs to this exam or this Study row."""
    try:
        key = str(UUID(instance))
    except ValueError:
        return None
    where, value = ("s.exam = ?", exam) if exam else ("s.id = ?", study)
    rows = await ledger.fetch(
        f"SELECT i.* FROM instance i JOIN study s ON s.id = i.study WHERE i.id = ? AND {where}",  # noqa: S608
        key,
        value,
    )
    return rows[0] if rows else None


_UNDELIVERED = (
    " AND EXISTS (SELECT 1 FROM delivery_item d JOIN delivery v ON v.id = d.delivery"
    " WHERE d.instance = i.id AND v.exam = s.exam AND d.state IN ('pending', 'stopped'))"
)


async def instances_page(
    ledger: Ledger,
    exam: str,
    *,
    batches: Sequence[str] = (),
    series: str = "",
    undelivered: bool = False,
    limit: int = 100,
    offset: int = 0,
) -> tuple[list[dict[str, Any]], int]:
    """One page of an exam's instances by Series and Instance Number, and how many there are.

    Args:
        ledger: The ledger.
        exam: The exam's key.
        batches: Only what came in these batches; none: in any.
        series: Only this Series Instance UID.
        undelivered: Only what some destination does not have yet.
        limit: Rows of a page.
        offset: Rows before it.
    """
    where, values = "s.exam = ? AND NOT i.conflict", [exam]
    if batches:
        marks = ",".join("?" * len(batches))
        where, values = f"{where} AND i.batch IN ({marks})", [*values, *batches]
    if series:
        where, values = f"{where} AND i.series_instance_uid = ?", [*values, series]
    if undelivered:
        where += _UNDELIVERED
    source = f"FROM instance i JOIN study s ON s.id = i.study WHERE {where}"
    total = await ledger.fetch(f"SELECT count(*) AS n {source}", *values)
    rows = await ledger.fetch(
        "SELECT i.id, i.sop_instance_uid, i.series_instance_uid, i.series_number,"
        " i.series_description, i.instance_number, i.number_of_frames, i.modality, i.size,"
        f" i.transfer_syntax_uid, i.received_at, i.batch, i.purged_at {source}"
        " ORDER BY length(i.series_number), i.series_number, i.series_instance_uid,"
        " length(i.instance_number), i.instance_number, i.id LIMIT ? OFFSET ?",
        *values,
        limit,
        offset,
    )
    return rows, int(total[0]["n"])


async def ways_of(ledger: Ledger, exam: str, instances: Sequence[str]) -> list[dict[str, Any]]:
    """Where each of these instances stands on its way to each destination of the exam."""
    if not instances:
        return []
    return await ledger.fetch(
        "SELECT d.instance, d.destination, d.state, d.attempts, d.code, d.reason, d.next_at,"  # noqa: S608
        " d.acknowledged_at FROM delivery_item d JOIN delivery v ON v.id = d.delivery"
        f" WHERE v.exam = ? AND d.instance IN ({','.join('?' * len(instances))})"
        " ORDER BY d.destination",
        exam,
        *instances,
    )
