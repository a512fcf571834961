"""An exam's or a held Study's images: Series with their counts, and single instances."""

from typing import Any
from uuid import UUID

from rso.ledger.ledger import Ledger

__all__ = ["instance_of", "series_of"]


async def series_of(ledger: Ledger, *, exam: str = "", study: str = "") -> list[dict[str, Any]]:
    """The Series of an exam, or of one Study row, each with its counts and middle instance.

    ``middle`` is the instance in the middle by Instance Number: the one that is shown small.
    """
    where, value = ("s.exam = ? AND NOT i.conflict", exam) if exam else ("s.id = ?", study)
    return await ledger.fetch(
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
