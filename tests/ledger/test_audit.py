"""The audit's own queries, the same on both engines."""

from datetime import timedelta

import pytest

from rso.core.exam import Exam, ExamStatus, Origin, Patient
from rso.core.number import make_number
from rso.ledger import Ledger, audit, new_id
from rso.ledger.active import Filters, find_active
from rso.ledger.exams import insert_exam, now

LAST = f"SELECT max(id) AS id FROM audit WHERE exam = ? AND {audit.EVENTS}"


@pytest.fixture
async def exam(ledger: Ledger) -> Exam:
    """An exam that waits for images."""
    made = Exam(
        id=new_id(), number=make_number(), facility="NORTH", origin=Origin.REQUEST,
        status=ExamStatus.REQUESTED, patient=Patient(name="DOE^JANE"), created_at=now(),
    )  # fmt: skip
    await insert_exam(ledger, made, due_at=now() + timedelta(hours=1), created_by="t")
    return made


async def plan(ledger: Ledger, sql: str, *values: object) -> str:
    """How the engine means to find it; PostgreSQL's sequential scans of nothing are ruled out."""
    explain = "EXPLAIN QUERY PLAN " if ledger.kind == "sqlite" else "EXPLAIN "
    async with ledger.transaction():
        if ledger.kind == "postgres":
            await ledger.execute("SET LOCAL enable_seqscan = off")
        return str(await ledger.fetch(explain + sql, *values))


async def test_a_look_is_no_event_of_an_exam(ledger: Ledger, exam: Exam) -> None:
    """The list's last event is what somebody did, however many looked since."""
    await audit.append(ledger, actor="a@x", action="exam claimed", exam=exam.number)
    for action in audit.SIGHTINGS:
        await audit.append(ledger, actor="b@x", action=action, exam=exam.number)
    (found,) = (await find_active(ledger, None, Filters(), at=now())).exams
    assert (found.row["said"]["actor"], found.row["said"]["action"]) == ("a@x", "exam claimed")
    assert await audit.verify(ledger) is None


async def test_the_last_event_is_found_by_an_index(ledger: Ledger) -> None:
    """Past any number of looks: the condition is the index's, word by word."""
    assert "audit_event" in await plan(ledger, LAST, "ABC")
