"""Counts of what somebody tried, exact however many try at the same time."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from rso.ledger import site_tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id

__all__ = ["count_up", "one_at_a_time", "recent", "take_back"]

_WINDOW = timedelta(minutes=1)
_LONGEST = 300
_LOCKS = 0x545259  # "TRY"; the first half of PostgreSQL's key


async def recent(ledger: Ledger, subject: str, window: timedelta = _WINDOW) -> int:
    """How often it was tried lately."""
    rows = await ledger.fetch(
        "SELECT count(*) AS n FROM login_attempt WHERE subject = ? AND at > ?",
        subject[:_LONGEST],
        now() - window,
    )
    return int(rows[0]["n"])


async def one_at_a_time(ledger: Ledger, *subjects: str) -> None:
    """Within a transaction: until it ends nobody else, in any process, counts these.

    On SQLite a transaction is the only writer anyway.
    """
    if ledger.kind == "postgres":
        for subject in sorted(subjects):
            await ledger.fetch("SELECT pg_advisory_xact_lock(?, hashtext(?))", _LOCKS, subject)


async def count_up(ledger: Ledger, limits: Mapping[str, int]) -> tuple[str, Sequence[str]]:
    """Count one more try of each subject, unless one of them was tried too often already.

    It is counted before it is tried, in one step with the look at the limit, so that no number
    of tries at the same time is more than the limit.

    Returns:
        The subject that is full, with nothing counted; or none, and what ``take_back`` takes.
    """
    async with ledger.transaction():
        await one_at_a_time(ledger, *limits)
        for subject, most in limits.items():
            if await recent(ledger, subject) >= most:
                return subject, ()
        at = now()
        rows = [{"id": new_id(), "subject": said[:_LONGEST], "at": at} for said in limits]
        await ledger.insert_rows(site_tables.Login, rows)
    return "", [str(row["id"]) for row in rows]


async def take_back(ledger: Ledger, counted: Sequence[str]) -> None:
    """What was no wrong try is not counted any more."""
    marks = ",".join("?" * len(counted))
    await ledger.execute(f"DELETE FROM login_attempt WHERE id IN ({marks})", *counted)  # noqa: S608
