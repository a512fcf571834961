"""The audit's own queries, the same on both engines."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import rso.ledger.audit_search
from rso.core.exam import Exam, ExamStatus, Origin, Patient
from rso.core.number import make_number
from rso.ledger import Ledger, audit, new_id
from rso.ledger.active import Filters, find_active
from rso.ledger.audit_search import Wanted, audit_actions, audit_chunks, audit_entries
from rso.ledger.exams import insert_exam, now

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
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


async def written(ledger: Ledger, many: int) -> None:
    """So many entries, a minute apart, of two facilities and three people."""
    for number in range(many):
        await audit.append(
            ledger, actor=f"p{number % 3}", action=f"did {number % 4}",
            facility=("NORTH", "SOUTH")[number % 2],
        )  # fmt: skip
    await ledger.execute_many(
        "UPDATE audit SET at = ? WHERE id = ?",
        [(START + timedelta(minutes=number), number) for number in range(1, many + 1)],
    )


async def test_a_long_audit_is_verified_in_parts(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more than a part in memory, hashed beside the event loop; every break is found."""
    monkeypatch.setattr(audit, "_CHUNK", 3)
    parts, threads = list[int](), set[int]()
    fetch, check = ledger.fetch, audit._first_broken

    async def counted(sql: str, *values: object) -> list[dict[str, object]]:
        rows = await fetch(sql, *values)
        parts.append(len(rows))
        return rows

    def noted(*args: object) -> int | None:
        threads.add(threading.get_ident())
        return check(*args)  # type: ignore[arg-type]

    for number in range(7):
        await audit.append(ledger, actor="a", action=f"did {number}")
    monkeypatch.setattr(ledger, "fetch", counted)
    monkeypatch.setattr(audit, "_first_broken", noted)
    assert await audit.verify(ledger) is None
    assert parts == [3, 3, 1, 0]
    assert threading.get_ident() not in threads
    for number in (1, 3, 4, 7):  # the ends of parts among them
        await ledger.execute("UPDATE audit SET actor = 'b' WHERE id = ?", number)
        assert await audit.verify(ledger) == number
        await ledger.execute("UPDATE audit SET actor = 'a' WHERE id = ?", number)
    await ledger.execute("DELETE FROM audit WHERE id = 4")
    assert await audit.verify(ledger) == 4


async def test_entries_are_found_by_time_and_who(ledger: Ledger) -> None:
    """From a moment until before another, within one's facilities, page after page."""
    await written(ledger, 30)

    async def numbers(facilities: tuple[str, ...] | None = None, **wanted: Any) -> list[int]:
        found = list[int]()
        while rows := await audit_entries(
            ledger, facilities, Wanted(before=found[-1] if found else None, **wanted), limit=4
        ):
            found += [row["id"] for row in rows]
        return found

    assert await numbers() == list(range(30, 0, -1))
    time = {"since": START + timedelta(minutes=7), "until": START + timedelta(minutes=20)}
    assert await numbers(**time) == list(range(19, 6, -1))
    assert await numbers(("SOUTH",), **time) == [18, 16, 14, 12, 10, 8]
    assert await numbers(("SOUTH", "NORTH"), **time) == list(range(19, 6, -1))
    assert await numbers((), **time) == []
    assert await numbers(("SOUTH", "NORTH"), actor="p1", **time) == [17, 14, 11, 8]
    assert await numbers(action="did 2", **time) == [19, 15, 11, 7]
    for nobody in ({"since": datetime.max.replace(tzinfo=UTC)},
                   {"until": datetime.min.replace(tzinfo=UTC)}):  # fmt: skip
        assert await numbers(**nobody) == []
    assert len(await numbers(since=datetime.min.replace(tzinfo=UTC))) == 30


async def test_a_clock_that_was_put_back_hides_nothing(ledger: Ledger) -> None:
    """Entries whose time is not in their order are found by their time all the same."""
    await written(ledger, 10)
    await ledger.execute(
        "UPDATE audit SET at = ? WHERE id = 3", START + timedelta(minutes=9, seconds=30)
    )
    rows = await audit_entries(ledger, None, Wanted(since=START + timedelta(minutes=9)))
    assert [row["id"] for row in rows] == [10, 9, 3]


async def test_entries_follow_one_another_in_time(ledger: Ledger) -> None:
    """Whoever waits for another's entry is later than it, also by its time."""
    slow = asyncio.Event()

    async def write(actor: str) -> None:
        async with ledger.transaction():
            await audit.append(ledger, actor=actor, action="did")
            if actor == "first":
                slow.set()
                await asyncio.sleep(0.2)

    first = asyncio.create_task(write("first"))
    await slow.wait()
    await asyncio.gather(first, *(write(f"then {n}") for n in range(4)))
    rows = await ledger.fetch("SELECT at FROM audit ORDER BY id")
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


@pytest.mark.parametrize("column", ["actor", "action", "facility", "exam"])
async def test_a_filter_reads_no_other_entries(ledger: Ledger, column: str) -> None:
    """What is found is the end of an index, within the numbers of a time."""
    sql = f"SELECT * FROM audit WHERE {column} = ? AND id >= 5 AND id < 9 ORDER BY id DESC LIMIT 9"
    told = await plan(ledger, sql, "x")
    assert f"audit_{column}" in told
    assert "SCAN" not in told.upper().replace("INDEX SCAN", "")


async def test_kinds_of_action_are_found_without_reading_all(ledger: Ledger) -> None:
    """Each once, in order; none of an empty audit."""
    assert await audit_actions(ledger) == []
    await written(ledger, 9)
    assert await audit_actions(ledger) == ["did 0", "did 1", "did 2", "did 3"]


async def test_an_export_comes_in_parts(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, the newest first, and no more than a part at once."""
    monkeypatch.setattr(rso.ledger.audit_search, "_CHUNK", 4)
    await written(ledger, 10)
    parts = [[row["id"] for row in rows] async for rows in audit_chunks(ledger, None, Wanted())]
    assert parts == [[10, 9, 8, 7], [6, 5, 4, 3], [2, 1]]
