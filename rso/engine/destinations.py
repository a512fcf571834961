"""Destinations as people watch them: queue, rate, breaker, and failures by their reason."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from rso.core.errors import ExamError
from rso.ledger import Ledger
from rso.ledger.destinations import destination_rows, failures, rates, waiting
from rso.ledger.exams import now

__all__ = ["DestinationView", "FailureView", "find_destination", "view_destinations"]


class FailureView(Struct, frozen=True, kw_only=True):
    """Instances that got the same answer.

    Attributes:
        state: ``stopped`` waits for a person, ``pending`` is tried again.
        code: The answer in the channel's terms (``A700``); ``fault``: the line broke.
    """

    state: str
    code: str
    reason: str
    instances: int
    exams: int


class DestinationView(Struct, frozen=True, kw_only=True):
    """One destination; counts are of the exams that the caller may see.

    Attributes:
        state: ``paused``, ``resting`` (the breaker is open until ``open_until``), ``failing``
            or ``working``.
        shared: It receives for facilities beyond the caller's.
        per_minute: Instances acknowledged a minute, over the last five.
    """

    code: str
    radiologist: str
    sender: str
    state: str
    shared: bool
    waiting: int
    stopped: int
    per_minute: float
    faults: int
    open_until: datetime | None
    last_success_at: datetime | None
    last_error: str
    failures: list[FailureView]


async def view_destinations(
    ledger: Ledger, *, facilities: Sequence[str] | None = None
) -> list[DestinationView]:
    """Every destination that reads for these facilities (``None`` means all)."""
    found = []
    rate = await rates(ledger, facilities)
    for row in await destination_rows(ledger, facilities):
        code = row["code"]
        answers = [FailureView(**f) for f in await failures(ledger, code, facilities)]
        resting = row["open_until"] is not None and row["open_until"] > now()
        state = "failing" if row["failures"] else "working"
        found.append(
            DestinationView(
                code=code,
                radiologist=row["radiologist"],
                sender=row["sender"],
                state="paused" if row["paused"] else "resting" if resting else state,
                shared=bool(row["shared"]),
                waiting=await waiting(ledger, code, facilities),
                stopped=sum(f.instances for f in answers if f.state == "stopped"),
                per_minute=rate.get(code, 0.0),
                faults=row["failures"],
                open_until=row["open_until"] if resting else None,
                last_success_at=row["last_success_at"],
                last_error=row["last_error"],
                failures=answers,
            )
        )
    return found


async def find_destination(
    ledger: Ledger, code: str, *, facilities: Sequence[str] | None = None
) -> bool:
    """Whether the destination serves other facilities too.

    Raises:
        ExamError: No destination of these facilities is called like that.
    """
    for row in await destination_rows(ledger, facilities):
        if row["code"] == code:
            return facilities is not None and bool(row["shared"])
    raise ExamError("no destination is called like that")
