"""What the pages list: exams with everything a row shows, within the caller's facilities."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rso.core.exam import Exam
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger

__all__ = [
    "exam_instances",
    "facilities_of",
    "message_counts",
    "released_to",
]


def _limit(facilities: Sequence[str] | None, column: str) -> tuple[str, list[Any]]:
    if facilities is None:
        return "1 = 1", []
    marks = ",".join("?" * len(facilities)) or "''"
    return f"{column} IN ({marks})", list(facilities)


async def exam_instances(ledger: Ledger, exam: Exam) -> list[dict[str, Any]]:
    """Every instance of an exam, with its Study and Series."""
    return await ledger.fetch(
        "SELECT i.*, s.study_instance_uid, s.description, s.study_date FROM instance i"
        " JOIN study s ON s.id = i.study WHERE s.exam = ? AND NOT i.conflict"
        " ORDER BY s.created_at, i.series_instance_uid, i.received_at, i.id",
        exam.id,
    )


async def facilities_of(ledger: Ledger, facilities: Sequence[str] | None) -> list[dict[str, Any]]:
    """The facilities somebody may act for."""
    where, values = _limit(facilities, "code")
    return await ledger.fetch(
        f"SELECT code, name FROM facility WHERE {where} ORDER BY code",  # noqa: S608
        *values,
    )


async def released_to(ledger: Ledger, exam: Exam) -> list[dict[str, Any]]:
    """The holds that a person let join an exam; each can be recalled."""
    return await ledger.fetch(
        "SELECT id, reason, resolved_by, resolution, resolved_at FROM hold WHERE exam = ?"
        " AND state IN ('released', 'created') ORDER BY resolved_at",
        exam.id,
    )


async def message_counts(ledger: Ledger, facilities: Sequence[str] | None) -> list[dict[str, Any]]:
    """The last day's messages by channel: waiting, sent (accepted or delivered) and failed."""
    where, values = _limit(facilities, "e.facility")
    return await ledger.fetch(
        "SELECT o.channel, sum(CASE WHEN o.state = 'queued' THEN 1 ELSE 0 END) AS waiting,"  # noqa: S608
        " sum(CASE WHEN o.state IN ('accepted', 'delivered') THEN 1 ELSE 0 END) AS sent,"
        " sum(CASE WHEN o.state = 'failed' THEN 1 ELSE 0 END) AS failed"
        " FROM outbox o LEFT JOIN exam e ON e.id = o.exam"
        f" WHERE o.kind = 'notify' AND o.created_at > ? AND {where}"
        " GROUP BY o.channel ORDER BY o.channel",
        now() - timedelta(days=1),
        *values,
    )
