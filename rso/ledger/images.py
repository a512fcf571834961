"""An exam's or a held Study's images: Series with their counts, and single instances."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rso.ledger.aggregates import with_times
from rso.ledger.ledger import Ledger

__all__ = ["batches_of", "instance_of", "instances_page", "series_of", "ways_of"]


async def series_of(ledger: Ledger, *, exam: str = "", study: str = "") -> list[dict[str, Any]]:
    """The Series of an exam, or of one Study row, each with its counts and middle instance.

    ``middle`` is the instance in the middle by Instance Number: the one that is shown small.
    """
    where, value = ("s.exam = ? AND NOT i.conflict", exam) if exam else ("s.id = ?", study)
    rows = await ledger.fetch(
        "SELECT study_instance_uid, description, study_date, series_instance_uid, series_number,"  # noqa: S608
        " series_description, modality, max(CASE WHEN place = (n + 1) / 2 THEN id END) AS middle,"
        " max(n) AS instances, sum(size) AS size, min(received_at) AS first_at,"
        " max(received_at) AS last_at, sum(CASE WHEN purged_at IS NULL THEN 0 ELSE 1 END) AS purged"
        " FROM (SELECT CAST(i.id AS VARCHAR(36)) AS id, i.series_instance_uid, i.series_number,"
        " i.series_description, i.modality, i.size, i.received_at, i.purged_at,"
        " s.study_instance_uid, s.description, s.study_date, s.created_at,"
        " row_number() OVER (PARTITION BY s.id, i.series_instance_uid"
        " ORDER BY length(i.instance_number), i.instance_number, i.id) AS place,"
        " count(*) OVER (PARTITION BY s.id, i.series_instance_uid) AS n"
        f" FROM instance i JOIN study s ON s.id = i.study WHERE {where}) AS placed"
        " GROUP BY created_at, study_instance_uid, description, study_date, series_instance_uid,"
        " series_number, series_description, modality"
        " ORDER BY created_at, length(series_number), series_number, series_instance_uid",
        value,
    )
    return with_times(rows, "first_at", "last_at")


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


async def batches_of(ledger: Ledger, exam: str, limit: int = 100) -> list[dict[str, Any]]:
    """What an exam's images came in, the last first, each with how many of them."""
    rows = await ledger.fetch(
        "SELECT b.id, b.channel, b.source, b.kind, b.peer_address, b.calling_ae_title, b.account,"
        " b.opened_at, b.closed_at, count(*) AS instances, sum(i.size) AS size,"
        " count(DISTINCT i.series_instance_uid) AS series, min(i.received_at) AS first_at,"
        " max(i.received_at) AS last_at FROM instance i JOIN study s ON s.id = i.study"
        " JOIN batch b ON b.id = i.batch WHERE s.exam = ? AND NOT i.conflict"
        " GROUP BY b.id, b.channel, b.source, b.kind, b.peer_address, b.calling_ae_title,"
        " b.account, b.opened_at, b.closed_at ORDER BY max(i.received_at) DESC LIMIT ?",
        exam,
        limit,
    )
    return with_times(rows, "first_at", "last_at")


_UNDELIVERED = (
    " AND EXISTS (SELECT 1 FROM delivery_item d JOIN delivery v ON v.id = d.delivery"
    " WHERE d.instance = i.id AND v.exam = s.exam AND d.state IN ('pending', 'stopped'))"
)


async def instances_page(
    ledger: Ledger,
    exam: str,
    *,
    batch: str = "",
    series: str = "",
    undelivered: bool = False,
    limit: int = 100,
    offset: int = 0,
) -> tuple[list[dict[str, Any]], int]:
    """One page of an exam's instances by Series and Instance Number, and how many there are.

    Args:
        ledger: The ledger.
        exam: The exam's key.
        batch: Only what came in this batch.
        series: Only this Series Instance UID.
        undelivered: Only what some destination does not have yet.
        limit: Rows of a page.
        offset: Rows before it.
    """
    where, values = "s.exam = ? AND NOT i.conflict", [exam]
    if batch:
        where, values = f"{where} AND i.batch = ?", [*values, batch]
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
