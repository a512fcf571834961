"""What an exam's images came in: batches, those that follow each other from one sender as one.

A browser makes a batch of twenty images, many a modality one of each.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rso.ledger.aggregates import with_times
from rso.ledger.ledger import Ledger

__all__ = ["arrivals_of", "batches_beside"]

_MOST = 2000  # batches of an exam that are read
_BREATH = timedelta(minutes=10)  # who pauses for longer sends anew
_SENDER = ("channel", "source", "peer_address", "account")
Row = dict[str, Any]


async def arrivals_of(
    ledger: Ledger, exam: str, *, most: int | None = None
) -> tuple[list[Row], int]:
    """An exam's arrivals, the last first, and how many older batches were not read.

    An arrival is a batch with the counts of all that belong to it: ``id`` is the first of them,
    ``batches`` their keys. ``most`` bounds how many batches are read.
    """
    rows, unread = await _batches(ledger, exam, most or _MOST)
    folded = _folded(rows)
    await _count_series(ledger, exam, [row for row in folded if len(row["batches"]) > 1])
    return folded, unread


async def batches_beside(ledger: Ledger, exam: str, batch: str) -> list[str]:
    """The batches of the arrival that a batch belongs to; itself where the exam has none such."""
    for row in _folded((await _batches(ledger, exam, _MOST))[0]):
        if batch in row["batches"]:
            return list(row["batches"])
    return [batch]


async def _batches(ledger: Ledger, exam: str, most: int) -> tuple[list[Row], int]:
    rows = await ledger.fetch(
        "SELECT b.id, b.channel, b.source, b.peer_address, b.account, count(*) AS instances,"
        " sum(i.size) AS size, count(DISTINCT i.series_instance_uid) AS series,"
        " min(i.received_at) AS first_at, max(i.received_at) AS last_at FROM instance i"
        " JOIN study s ON s.id = i.study JOIN batch b ON b.id = i.batch"
        " WHERE s.exam = ? AND NOT i.conflict GROUP BY b.id, b.channel, b.source, b.peer_address,"
        " b.account ORDER BY max(i.received_at) DESC, b.id DESC LIMIT ?",
        exam,
        most,
    )
    found = [{**row, "id": str(row["id"])} for row in with_times(rows, "first_at", "last_at")]
    if len(found) < most:
        return found, 0
    (whole,) = await ledger.fetch(
        "SELECT count(DISTINCT b.id) AS n FROM instance i JOIN study s ON s.id = i.study"
        " JOIN batch b ON b.id = i.batch WHERE s.exam = ? AND NOT i.conflict",
        exam,
    )
    return found, whole["n"] - len(found)


def _folded(rows: Sequence[Row]) -> list[Row]:
    """Batches, the last first, with those of the same sender that follow each other as one."""
    folded = list[Row]()
    latest = dict[tuple[str, ...], Row]()
    for row in rows:
        sender = tuple(row[name] for name in _SENDER)
        one = latest.get(sender)
        if one is None or one["first_at"] - row["last_at"] > _BREATH:
            latest[sender] = {**row, "batches": [row["id"]]}
            folded.append(latest[sender])
            continue
        one["batches"].append(row["id"])
        one["instances"] += row["instances"]
        one["size"] += row["size"]
        # By the first, which stays where more follow.
        one |= {"id": row["id"], "first_at": min(one["first_at"], row["first_at"])}
    return folded


async def _count_series(ledger: Ledger, exam: str, folded: Sequence[Row]) -> None:
    """Count the Series of arrivals: one Series may come in many batches."""
    if not folded:
        return
    rows = await ledger.fetch(
        "SELECT DISTINCT i.batch, i.series_instance_uid FROM instance i"
        " JOIN study s ON s.id = i.study WHERE s.exam = ? AND NOT i.conflict",
        exam,
    )
    series = dict[str, set[str]]()
    for row in rows:
        series.setdefault(str(row["batch"]), set()).add(row["series_instance_uid"])
    for one in folded:
        one["series"] = len(set[str]().union(*(series.get(key, ()) for key in one["batches"])))
