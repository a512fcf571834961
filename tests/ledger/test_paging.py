"""Pages of the Active patient list, there and back, over lists that change meanwhile."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority
from rso.core.names import search_key
from rso.core.number import make_number
from rso.ledger import Ledger, exam_fits, new_id, tables
from rso.ledger.active import ACTIVE, SORTS, Filters, Page, find_active
from rso.ledger.exams import insert_exam, now

AT = now()
EXAMS = st.lists(
    st.fixed_dictionaries({
        "name": st.sampled_from(["DOE^A", "DOE^B", "ROE", "MÜLLER", "D"]),
        "left": st.sampled_from([-90, -5, 5, 90]),  # few: many are due at the same moment
        "facility": st.sampled_from(["NORTH", "SOUTH"]),
        "priority": st.sampled_from(["stat", "urgent", "routine"]),
        "status": st.sampled_from([*ACTIVE, "closed"]),
        "modality": st.sampled_from(["CT", "MR"]),
        "owner": st.sampled_from(["", "me@example.org"]),
        "trouble": st.booleans(),
    }), max_size=14,
)  # fmt: skip
WANTED = st.fixed_dictionaries({}, optional={
    "search": st.sampled_from(["d", "P", "do"]), "status": st.sampled_from([*ACTIVE, "closed"]),
    "facility": st.just("SOUTH"), "rank": st.integers(0, 2), "modality": st.just("CT"),
    "owner": st.sampled_from(["-", "me@example.org"]), "sort": st.sampled_from(SORTS),
})  # fmt: skip
WHO = st.sampled_from([None, ["NORTH"], ["NORTH", "SOUTH"], [*map(str, range(30)), "NORTH"]])
MANY = settings(
    max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


async def make(
    ledger: Ledger, *, name: str = "DOE^A", left: int = 5, facility: str = "NORTH",
    priority: str = "routine", status: str = "requested", modality: str = "CT", owner: str = "",
    trouble: bool = False,
) -> str:  # fmt: skip
    """An exam, due in so many minutes; its key."""
    number = make_number()
    exam = Exam(
        id=new_id(), number=number, facility=facility, origin=Origin.REQUEST,
        status=ExamStatus(status), patient=Patient(name=name, patient_id=f"P{number[-1]}"),
        created_at=AT + timedelta(minutes=left), priority=Priority(priority), modality=modality,
    )  # fmt: skip
    await insert_exam(ledger, exam, due_at=AT + timedelta(minutes=left), created_by="t")
    await ledger.execute("UPDATE exam SET owner = ? WHERE id = ?", owner, exam.id)
    if trouble:
        row = {"id": new_id(), "exam": exam.id, "destination": "PACS", "priority": 2,
               "state": "stopped", "acknowledged": 0, "total": 1, "last_error": "",
               "created_at": AT, "updated_at": AT}  # fmt: skip
        await ledger.insert_rows(tables.Delivery, [row])
    return exam.id


async def filled(ledger: Ledger, exams: Sequence[dict[str, Any]]) -> None:
    """A ledger of these exams and no others."""
    await ledger.execute("DELETE FROM delivery")
    await ledger.execute("DELETE FROM exam")
    for exam in exams:
        await make(ledger, **exam)


def keys(page: Page) -> list[str]:
    """The exams of a page."""
    return [exam.row["id"] for exam in page.exams]


def fits(row: dict[str, Any], who: Sequence[str] | None, wanted: dict[str, Any]) -> bool:
    """What the list has to show, said anew and plainly."""
    search, state = wanted.get("search", ""), wanted.get("status")
    owner = {"-": ""}.get(wanted.get("owner", ""), wanted.get("owner"))
    return (
        (row["status"] == state if state else row["status"] in ACTIVE)
        and (who is None or row["facility"] in who)
        and wanted.get("facility", row["facility"]) == row["facility"]
        and wanted.get("rank", row["priority"]) == row["priority"]
        and wanted.get("modality", row["modality"]) == row["modality"]
        and (owner is None or row["owner"] == owner)
        and (
            not search
            or row["number"].startswith(search.upper())
            or row["patient_id"].startswith(search)
            or row["name_key"].startswith(search_key(search))
        )
    )


@MANY
@pytest.mark.parametrize("few", [0, 500])
@given(exams=EXAMS, wanted=WANTED, who=WHO, limit=st.integers(1, 4))
async def test_there_and_back(
    ledger: Ledger, few: int, exams: list[Any], wanted: dict[str, Any], who: Any, limit: int
) -> None:
    """Forwards everything that fits, each once; backwards the same pages; from either side found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exam_fits, "_FEW", few)
        await filled(ledger, exams)

        async def look(cursor: str) -> Page:
            return await find_active(
                ledger, who, Filters(**wanted), at=AT, cursor=cursor, limit=limit
            )

        pages = [await look("")]
        while pages[-1].next:
            pages.append(await look(pages[-1].next))
        seen = [key for page in pages for key in keys(page)]
        stored = await ledger.fetch("SELECT * FROM exam")
        assert sorted(seen) == sorted(row["id"] for row in stored if fits(row, who, wanted))
        whole = await find_active(ledger, who, Filters(**wanted), at=AT, limit=50)
        assert keys(whole) == seen
        assert not pages[0].previous
        for page, before in zip(pages[:0:-1], pages[-2::-1], strict=True):
            assert await look(page.here) == page
            assert await look(page.previous) == before


CHANGES = st.lists(
    st.tuples(st.integers(0, 13), st.sampled_from(["gone", "later", "new", "trouble"])), max_size=6
)


@MANY
@given(exams=EXAMS, changes=CHANGES, sort=st.sampled_from(SORTS), limit=st.integers(1, 4))
async def test_changes_meanwhile(
    ledger: Ledger, exams: list[Any], changes: list[tuple[int, str]], sort: str, limit: int
) -> None:
    """Exams leave, move and come between two looks: none that stayed is skipped, there or back."""
    await filled(ledger, exams)
    rows = await ledger.fetch("SELECT id, status FROM exam ORDER BY id")
    still = {row["id"] for row in rows if row["status"] in ACTIVE}
    todo = list(changes)

    async def look(cursor: str) -> Page:
        page = await find_active(
            ledger, None, Filters(sort=sort), at=AT, cursor=cursor, limit=limit
        )
        if todo:
            at, change = todo.pop()
            if change == "new":
                await make(ledger, name="NEW", left=-200)
            elif at < len(rows):
                key = rows[at]["id"]
                still.discard(key)
                column, value = {"gone": ("status", "closed"), "trouble": ("priority", 0),
                                 "later": ("due_at", AT + timedelta(days=9))}[change]  # fmt: skip
                await ledger.execute(f"UPDATE exam SET {column} = ? WHERE id = ?", value, key)
        return page

    page = await look("")
    there = keys(page)
    while page.next:
        page = await look(page.next)
        there += keys(page)
    assert not (still - set(there))
    assert sorted(key for key in there if key in still) == sorted(still)
    back = set(keys(page))
    for _ in range(40):
        if not page.previous:
            break
        page = await look(page.previous)
        back |= set(keys(page))
    assert not page.previous
    assert not (still - back)


async def test_a_page_that_empties(ledger: Ledger) -> None:
    """Its exams leave the list: the page before is shown, and it is the first when that is all."""
    made = [await make(ledger, left=i) for i in range(5)]
    first = await find_active(ledger, None, Filters(), at=AT, limit=2)
    second = await find_active(ledger, None, Filters(), at=AT, limit=2, cursor=first.next)
    third = await find_active(ledger, None, Filters(), at=AT, limit=2, cursor=second.next)
    assert keys(third) == made[4:]
    await ledger.execute("UPDATE exam SET status = 'closed' WHERE id = ?", made[4])
    again = await find_active(ledger, None, Filters(), at=AT, limit=2, cursor=third.here)
    assert (keys(again), again.here, again.next) == (made[2:4], second.here, "")
    for key in made[1:]:
        await ledger.execute("UPDATE exam SET status = 'closed' WHERE id = ?", key)
    again = await find_active(ledger, None, Filters(), at=AT, limit=2, cursor=third.here)
    assert (keys(again), again.previous, again.next) == (made[:1], "", "")


async def test_a_page_keeps_its_place(ledger: Ledger) -> None:
    """What comes in before a page, or what it begins behind leaves or moves, does not turn it."""
    made = [await make(ledger, left=10 + i) for i in range(6)]
    first = await find_active(ledger, None, Filters(), at=AT, limit=2)
    second = await find_active(ledger, None, Filters(), at=AT, limit=2, cursor=first.next)
    await make(ledger, left=1)
    await ledger.execute("UPDATE exam SET status = 'closed' WHERE id = ?", made[1])
    await ledger.execute(
        "UPDATE exam SET due_at = ?, priority = 0 WHERE id = ?", AT + timedelta(days=2), made[0]
    )
    again = await find_active(ledger, None, Filters(), at=AT, limit=2, cursor=second.here)
    assert keys(again) == keys(second) == made[2:4]
    # One that needed a person and has what it needed takes none of the others along.
    troubled = [await make(ledger, left=i, trouble=True) for i in range(3)]
    first = await find_active(ledger, None, Filters(), at=AT, limit=1)
    assert keys(first) == troubled[:1]
    await ledger.execute("UPDATE delivery SET state = 'delivered' WHERE exam = ?", troubled[0])
    second = await find_active(ledger, None, Filters(), at=AT, limit=2, cursor=first.next)
    assert keys(second) == troubled[1:]
    assert [exam.group for exam in second.exams] == ["trouble", "trouble"]
