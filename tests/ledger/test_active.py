"""The Active patient list's queries, the same on both engines."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority
from rso.core.number import format_number, make_number
from rso.ledger import Ledger, new_id, tables
from rso.ledger.active import Filters, count_active, find_active
from rso.ledger.active_cursor import Cursor
from rso.ledger.exams import insert_exam, now, set_status

AT = now()


async def make(
    ledger: Ledger, name: str, left: int, *, facility: str = "NORTH", priority: str = "routine",
    status: str = "requested", patient_id: str = "", modality: str = "CT", number: str = "",
    owner: str = "",
) -> str:  # fmt: skip
    """An exam that is due in so many minutes; its key."""
    exam = Exam(
        id=new_id(), number=number or make_number(), facility=facility, origin=Origin.REQUEST,
        status=ExamStatus(status), patient=Patient(name=name, patient_id=patient_id),
        created_at=now(), priority=Priority(priority), modality=modality,
    )  # fmt: skip
    await insert_exam(ledger, exam, due_at=AT + timedelta(minutes=left), created_by="t")
    await ledger.execute("UPDATE exam SET owner = ? WHERE id = ?", owner, exam.id)
    return exam.id


async def names(
    ledger: Ledger, facilities: Sequence[str] | None = None, *, limit: int = 50, **wanted: Any
) -> list[str]:
    """The names on all the pages of a list, page after page."""
    found, cursor = list[str](), ""
    for _ in range(40):
        page = await find_active(
            ledger, facilities, Filters(**wanted), at=AT, cursor=cursor, limit=limit
        )
        assert len(page.exams) <= limit
        found += [exam.row["patient_name"] for exam in page.exams]
        cursor = page.next
        if not cursor:
            return found
    raise AssertionError("the pages do not end")


async def trouble(ledger: Ledger, exam: str) -> None:
    """A delivery of the exam stops."""
    row = {"id": new_id(), "exam": exam, "destination": "PACS", "priority": 2, "state": "stopped",
           "acknowledged": 0, "total": 1, "last_error": "", "created_at": AT, "updated_at": AT}  # fmt: skip
    await ledger.insert_rows(tables.Delivery, [row])


@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_the_order_of_urgency(ledger: Ledger, limit: int) -> None:
    """Trouble, overdue, STAT by time left, the rest, the delivered; whole at any page size."""
    await make(ledger, "DONE", 5, status="delivered")
    await make(ledger, "CLOSED", 5, status="closed")
    await make(ledger, "ROUTINE", 5)
    await make(ledger, "URGENT", 5, priority="urgent")
    await make(ledger, "STAT-LATER", 20, priority="stat")
    await make(ledger, "STAT-SOON", 10, priority="stat")
    await make(ledger, "OVER-ROUTINE", -50)
    await make(ledger, "OVER-STAT", -1, priority="stat", facility="SOUTH")
    for name in ("TROUBLE-1", "TROUBLE-2"):
        await trouble(ledger, await make(ledger, name, 500))
    expected = ["TROUBLE-1", "TROUBLE-2", "OVER-STAT", "OVER-ROUTINE", "STAT-SOON", "STAT-LATER",
                "URGENT", "ROUTINE", "DONE"]  # fmt: skip
    assert await names(ledger, limit=limit) == expected
    assert await names(ledger, ["NORTH", "SOUTH"], limit=limit) == expected
    assert await names(ledger, [*map(str, range(30)), "NORTH", "SOUTH"], limit=limit) == expected
    north = [name for name in expected if name != "OVER-STAT"]
    assert await names(ledger, ["NORTH"], limit=limit) == north
    assert await names(ledger, ["NORTH"], facility="SOUTH", limit=limit) == []
    assert await names(ledger, [], limit=limit) == []
    assert await count_active(ledger) == {
        ("NORTH", "delivered"): 1, ("NORTH", "requested"): 7, ("SOUTH", "requested"): 1,
    }  # fmt: skip


async def test_equal_times_lose_nobody(ledger: Ledger) -> None:
    """Exams due at the same moment are all shown, each once."""
    made = {f"P{i}" for i in range(7)}
    for name in made:
        await make(ledger, name, 30)
    for facilities in (None, ["NORTH"], ["NORTH", "SOUTH"]):
        assert sorted(await names(ledger, facilities, limit=2)) == sorted(made)


async def test_search(ledger: Ledger) -> None:
    """The beginning of a number, a Patient ID or a name; a whole number finds any state."""
    number = make_number()
    await make(ledger, "MÜLLER^ANNA", 5, number=number, patient_id="P-100")
    await make(ledger, "MULLIGAN^TOM", 5, patient_id="P-101")
    await make(ledger, "DOE^JANE", 5, patient_id="MU", facility="SOUTH")
    closed = make_number()
    await make(ledger, "GONE^BY", 5, number=closed, status="closed")
    assert await names(ledger, search="müll") == ["MÜLLER^ANNA", "MULLIGAN^TOM"]
    assert await names(ledger, search="muller a") == ["MÜLLER^ANNA"]
    assert await names(ledger, search="P-10", limit=1) == ["MÜLLER^ANNA", "MULLIGAN^TOM"]
    assert await names(ledger, search="MU", limit=1) == ["DOE^JANE", "MÜLLER^ANNA", "MULLIGAN^TOM"]
    assert await names(ledger, ["NORTH"], search="MU") == ["MÜLLER^ANNA", "MULLIGAN^TOM"]
    shown = format_number(number)
    assert await names(ledger, search=shown[:7].lower()) == ["MÜLLER^ANNA"]
    assert await names(ledger, search=shown) == ["MÜLLER^ANNA"]
    assert await names(ledger, search=closed) == ["GONE^BY"]
    assert await names(ledger, ["SOUTH"], search=closed) == []
    assert await names(ledger, search="gone") == []
    assert await names(ledger, search="gone", status="closed") == ["GONE^BY"]
    assert await names(ledger, search="%") == []


async def test_filters_and_sorts(ledger: Ledger) -> None:
    """By state, priority, modality and owner; newest, oldest, by name."""
    await make(ledger, "BETA", 5, priority="stat", owner="me@example.org")
    await make(ledger, "GAMMA", -5, modality="MR", status="receiving")
    await make(ledger, "ALPHA", 7, status="delivered", owner="me@example.org")
    await make(ledger, "OLD", 7, status="cancelled")
    assert await names(ledger, sort="newest", limit=1) == ["ALPHA", "GAMMA", "BETA"]
    assert await names(ledger, sort="oldest") == ["BETA", "GAMMA", "ALPHA"]
    assert await names(ledger, ["NORTH", "SOUTH"], sort="name", limit=1) == [
        "ALPHA", "BETA", "GAMMA",
    ]  # fmt: skip
    assert await names(ledger, rank=0) == ["BETA"]
    assert await names(ledger, modality="MR") == ["GAMMA"]
    assert await names(ledger, owner="me@example.org") == ["BETA", "ALPHA"]
    assert await names(ledger, owner="-") == ["GAMMA"]
    assert await names(ledger, status="receiving") == ["GAMMA"]
    assert await names(ledger, status="delivered") == ["ALPHA"]
    assert await names(ledger, status="cancelled", sort="oldest") == ["OLD"]
    assert await names(ledger, status="cancelled", sort="name") == ["OLD"]
    # A cursor of nowhere, or of another order, begins at the top.
    by_name = await find_active(ledger, None, Filters(sort="name"), at=AT, limit=1)
    key = "00000000-0000-0000-0000-000000000000"
    wrong = [Cursor(False, s, c, v, i).text() for s, c, v, i in (
        (9, "due_at", str(AT), key), (0, "due_at", "yesterday", key), (0, "due_at", str(AT), "x"),
        (-1, "due_at", str(AT), key), (0, "patient_name", "A", key),
    )]  # fmt: skip
    for cursor in ("0:x", "é", "!", "bnVsbA==", by_name.next, *wrong):
        page = await find_active(ledger, None, Filters(), at=AT, cursor=cursor)
        assert page.exams[0].row["patient_name"] == "GAMMA", cursor
        assert not page.previous


async def test_word_of_changes(ledger: Ledger) -> None:
    """Whoever changes an exam, a hold or a delivery, the facility is told within a second."""
    exam = await make(ledger, "DOE^JANE", 5)
    async with ledger.changes() as changes:
        assert await anext(changes) is None

        async def heard() -> frozenset[str] | None:
            return await asyncio.wait_for(anext(changes), 3)

        await make(ledger, "ROE^RICHARD", 5, facility="SOUTH")
        assert await heard() == {"SOUTH"}
        await set_status(ledger, exam, ExamStatus.RECEIVING)
        assert await heard() == {"NORTH"}
        await trouble(ledger, exam)
        assert await heard() == {"NORTH"}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 1.5)
