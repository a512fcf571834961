"""What the ledger knows of an exam's images and whether they may go; marking them as going."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from rso.core.exam import ExamStatus
from rso.core.retention import Standing
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger

__all__ = [
    "candidates",
    "images_of",
    "leaving",
    "mark_leaving",
    "mark_purged",
    "mark_removed",
    "standing_of",
]

# An exam's images that are in the archive and belong to it, not to a hold of their own.
_IMAGES = (
    " FROM instance i JOIN study s ON s.id = i.study"
    " WHERE s.exam = ? AND NOT i.conflict AND i.purged_at IS NULL"
)


async def candidates(ledger: Ledger, after: str, limit: int) -> list[dict[str, Any]]:
    """Ended exams of facilities with a retention period that have images, by key from ``after``."""
    return await ledger.fetch(
        "SELECT e.id, e.number, e.facility, e.status FROM exam e JOIN facility f"
        " ON f.code = e.facility WHERE e.status IN ('delivered', 'closed', 'cancelled')"
        " AND f.settings LIKE '%\"retention_days\"%' AND e.id > ?"
        " AND EXISTS (SELECT 1 FROM study s JOIN instance i ON i.study = s.id"
        " WHERE s.exam = e.id AND NOT i.conflict AND i.purged_at IS NULL)"
        " ORDER BY e.id LIMIT ?",
        after,
        limit,
    )


async def images_of(ledger: Ledger, exam_id: str) -> list[dict[str, Any]]:
    """Keys and sizes of an exam's images in the archive."""
    return await ledger.fetch(f"SELECT i.id, i.size{_IMAGES} ORDER BY i.id", exam_id)


async def standing_of(ledger: Ledger, exam_id: str) -> Standing | None:
    """All that decides about an exam's images.

    Inside a transaction the exam and its Studies stay as they are until it ends.
    """
    lock = ledger.for_update
    of_exam = f"SELECT id, state FROM study WHERE exam = ? ORDER BY id{lock}"  # noqa: S608
    await ledger.fetch(of_exam, exam_id)
    exams = await ledger.fetch(f"SELECT * FROM exam WHERE id = ?{lock}", exam_id)  # noqa: S608
    if not exams:
        return None
    exam = exams[0]
    studies = await ledger.fetch(of_exam, exam_id)  # one may have come before the exam stood still
    facility = await ledger.fetch("SELECT settings FROM facility WHERE code = ?", exam["facility"])
    settings: dict[str, Any] = msgspec.json.decode(facility[0]["settings"]) if facility else {}
    deliveries = await ledger.fetch(
        "SELECT state, acknowledged, total FROM delivery WHERE exam = ? AND total > 0", exam_id
    )
    cancelled = await ledger.fetch(
        "SELECT max(id) AS id FROM audit WHERE exam = ? AND action = 'exam cancelled'",
        exam["number"],
    )
    images = await images_of(ledger, exam_id)
    return Standing(
        status=ExamStatus(exam["status"]),
        retention_days=settings.get("retention_days"),
        cancelled_at=await _moment(ledger, cancelled[0]["id"]),
        deliveries=tuple((d["state"], d["acknowledged"], d["total"]) for d in deliveries),
        instances=len(images),
        unproven=await _unproven(ledger, exam_id),
        unmatched=sum(row["state"] != "matched" for row in studies),
        holds=await _holds(ledger, exam),
        missing=(exam["expected_instances"] or 0) - exam["instances"],
        last_at=await _last(ledger, exam),
    )


async def _moment(ledger: Ledger, entry: int | None) -> datetime | None:
    if entry is None:
        return None
    rows = await ledger.fetch("SELECT at FROM audit WHERE id = ?", entry)
    at: datetime = rows[0]["at"]
    return at


async def _unproven(ledger: Ledger, exam_id: str) -> int:
    """Images without any acknowledgement of this exam's, or with an answer still owed."""
    items = (
        "EXISTS (SELECT 1 FROM delivery_item d JOIN delivery v ON v.id = d.delivery"
        " WHERE d.instance = i.id AND v.exam = s.exam AND d.state"
    )
    rows = await ledger.fetch(
        f"SELECT count(*) AS n{_IMAGES}"
        f" AND (NOT {items} = 'acknowledged') OR {items} <> 'acknowledged'))",
        exam_id,
    )
    return int(rows[0]["n"])


async def _holds(ledger: Ledger, exam: dict[str, Any]) -> int:
    """Open holds on its Studies, on the same Study under another identity, or that suspect it."""
    rows = await ledger.fetch(
        "SELECT count(*) AS n FROM hold h JOIN study s ON s.id = h.study WHERE h.state = 'open'"
        " AND h.facility = ? AND (s.exam = ? OR h.evidence LIKE ? OR s.study_instance_uid IN"
        " (SELECT study_instance_uid FROM study WHERE exam = ?))",
        exam["facility"],
        exam["id"],
        f'%"{exam["number"]}"%',
        exam["id"],
    )
    return int(rows[0]["n"])


async def _last(ledger: Ledger, exam: dict[str, Any]) -> datetime | None:
    rows = await ledger.fetch(
        "SELECT d.acknowledged_at AS at FROM delivery_item d JOIN delivery v ON v.id = d.delivery"
        " WHERE v.exam = ? AND d.acknowledged_at IS NOT NULL"
        " ORDER BY d.acknowledged_at DESC LIMIT 1",
        exam["id"],
    )
    known = [exam["delivered_at"], exam["last_instance_at"], *(row["at"] for row in rows)]
    return max((at for at in known if at is not None), default=None)


async def mark_purged(ledger: Ledger, instances: Sequence[str]) -> int:
    """Say that these may go; from here on nobody reads their files. Returns how many are new."""
    marked, at = 0, now()
    for start in range(0, len(instances), 1000):
        part = instances[start : start + 1000]
        marked += await ledger.execute(
            "UPDATE instance SET purged_at = ? WHERE purged_at IS NULL"  # noqa: S608
            f" AND id IN ({','.join('?' * len(part))})",
            at,
            *part,
        )
    return marked


async def leaving(ledger: Ledger, limit: int) -> list[str]:
    """Instances that may go and whose files are not known to be gone."""
    rows = await ledger.fetch(
        "SELECT id FROM instance WHERE purged_at IS NOT NULL AND removed_at IS NULL"
        " ORDER BY purged_at LIMIT ?",
        limit,
    )
    return [str(row["id"]) for row in rows]


async def mark_removed(ledger: Ledger, instances: Sequence[str]) -> None:
    """Say that these files are gone."""
    await ledger.execute_many(
        "UPDATE instance SET removed_at = ? WHERE id = ? AND purged_at IS NOT NULL",
        [(now(), instance) for instance in instances],
    )


async def mark_leaving(ledger: Ledger, instances: Sequence[str]) -> None:
    """Say that files of purged instances are there, after all, and are to be removed."""
    await ledger.execute_many(
        "UPDATE instance SET removed_at = NULL WHERE id = ? AND purged_at IS NOT NULL",
        [(instance,) for instance in instances],
    )
