"""Rows are locked in one order, and where PostgreSQL undoes a transaction all the same, no end."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

import pytest

from rso.core.exam import Exam, Patient, Priority
from rso.core.header import Header
from rso.core.transport import Kind, Provenance
from rso.engine import again, dispatch
from rso.engine.again import run_again
from rso.engine.context import Engine
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import create_exam, note_exam
from rso.engine.holds import reject_hold, release_hold
from rso.engine.intake import take_records
from rso.engine.spool_reader import Alert, InstanceRecord
from rso.ledger import LedgerUnavailable, new_id
from rso.ledger.exams import exam_by_id, lock_exams, now
from rso.ledger.holds import find_holds, hold_by_id
from rso.ledger.studies import lock_study

PATIENT = Patient(name="DOE^JANE", patient_id="P-1", birth_date="19700131")


def arrived(exam: Exam | None = None, *, study: str = "1.2.3") -> InstanceRecord:
    """An instance as the spool hands it over; of an exam, or of a stranger."""
    record = new_id()
    return InstanceRecord(
        record_id=record, batch_id=new_id(), path=None, part10=memoryview(record.encode()),
        dataset_offset=0, size=len(record), received_at=now(),
        header=Header(
            sop_class_uid="1.2", sop_instance_uid=f"1.2.{int(record[-12:], 16)}",
            study_instance_uid=study, series_instance_uid="1.2", transfer_syntax_uid="1.2",
            patient=PATIENT if exam else Patient(),
        ),
        provenance=Provenance(
            channel="http_upload", facility="NORTH", source="x", kind=Kind.TECHNICIAN,
            peer_address="127.0.0.1", opened_at=now(), exam_number=exam.number if exam else "",
        ),
    )  # fmt: skip


def outside(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begin in a context of its own: it joins no transaction of ours."""
    return asyncio.create_task(work, context=contextvars.Context())


async def queued(engine: Engine) -> int:
    """How many items wait for the destination."""
    rows = await engine.ledger.fetch("SELECT id FROM delivery_item WHERE state = 'pending'")
    return len(rows)


@pytest.mark.parametrize("ledger", ["postgres"], indirect=True)
async def test_a_deadlock_is_a_database_that_does_not_answer(engine: Engine) -> None:
    """Two wait for each other in a ring: one is undone and can be done again, the other goes on."""
    exams = [await create_exam(engine, facility="NORTH", patient=PATIENT, actor="t") for _ in "ab"]
    ready = asyncio.Barrier(2)

    async def crosswise(order: list[Exam]) -> None:
        async with engine.ledger.transaction():
            await lock_exams(engine.ledger, [order[0].id])
            await ready.wait()
            await lock_exams(engine.ledger, [order[1].id])

    ends = await asyncio.gather(
        outside(crosswise(exams)), outside(crosswise(exams[::-1])), return_exceptions=True
    )
    assert {type(end) for end in ends} == {type(None), LedgerUnavailable}
    assert "undid" in " ".join(str(end) for end in ends)


async def test_intake_has_the_audit_last(engine: Engine) -> None:
    """A person has the exam and goes on to the audit, which intake wants too: no ring."""
    exam = await create_exam(engine, facility="NORTH", patient=PATIENT, actor="t")
    alert = Alert(kind="security alert", facts={"facility": "NORTH"})
    async with engine.ledger.transaction():
        await lock_exams(engine.ledger, [exam.id])
        task = outside(take_records(engine, [alert, arrived(exam)]))
        await asyncio.wait({task}, timeout=0.5)
        await note_exam(engine.ledger, exam, "a", "exam edited")
    assert await task == 1
    rows = await engine.ledger.fetch("SELECT action FROM audit ORDER BY id")
    assert [row["action"] for row in rows] == ["exam created", "exam edited", "security alert"]


@pytest.mark.parametrize("first", ["release", "images"])
async def test_what_comes_while_its_study_is_released_is_sent(engine: Engine, first: str) -> None:
    """Whichever is first: no image stays behind in a Study that is decided on."""
    exam = await create_exam(engine, facility="NORTH", patient=Patient(), actor="t")
    await take_records(engine, [arrived()])
    (hold,) = await find_holds(engine.ledger)
    release = release_hold(engine, hold.id, exam.number, reason="r", actor="a")
    images = take_records(engine, [arrived()])
    one, other = (release, images) if first == "release" else (images, release)
    async with engine.ledger.transaction():
        await one
        task = outside(other)
        await asyncio.wait({task}, timeout=0.5)
    await task
    assert await queued(engine) == 2


async def test_the_dispatcher_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routing is undone once: it is tried again, and no courier has ended."""
    stop, turns, running = asyncio.Event(), 0, list[Any]()

    async def undone(_: Engine) -> int:
        nonlocal turns
        turns += 1
        running.append([r[3] for r in dispatcher._running.values()])
        if turns == 1:
            raise LedgerUnavailable("undone")
        stop.set()
        return 0

    monkeypatch.setattr(again, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(dispatch, "retry_routing", undone)
    dispatcher = dispatch.Dispatcher(engine, "host/work-0/1")
    await asyncio.wait_for(dispatcher.run(stop), 20)
    assert turns == 2
    assert running[0] == running[1]
    assert running[0]


async def test_a_sender_that_cannot_begin_leaves_others_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its plugin raises: the destination says so, the other ones are served."""
    (code, *_) = await engine.ledger.fetch("SELECT code FROM destination ORDER BY code")
    sender, config = engine.plugins.senders["dicom_scu"]

    class Broken(sender):  # type: ignore[misc, valid-type]
        def __init__(self, *_: object) -> None:
            raise ZeroDivisionError("a mistake")

    monkeypatch.setitem(engine.plugins.senders, "dicom_scu", (Broken, config))  # type: ignore[arg-type]
    dispatcher, stop = dispatch.Dispatcher(engine, "host/work-0/1"), asyncio.Event()
    task = asyncio.create_task(dispatcher.run(stop))
    for _ in range(200):
        rows = await engine.ledger.fetch(
            "SELECT last_error FROM destination WHERE code = ?", code["code"]
        )
        if rows[0]["last_error"] or task.done():
            break
        await asyncio.sleep(0.02)
    assert rows[0]["last_error"] == "plugin dicom_scu: ZeroDivisionError: a mistake"
    assert not task.done()
    stop.set()
    await asyncio.wait_for(task, 10)


async def test_the_database_goes_away_for_two_tasks_at_once() -> None:
    """Tasks side by side raise a group: that is waited for as well; another error is not."""
    stop, begun = asyncio.Event(), 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(away())
        if begun == 2:
            raise ZeroDivisionError

    async def away() -> None:
        await asyncio.sleep(0)
        raise LedgerUnavailable("away")

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(run_again(run, stop, what="a test"), 5)
    assert begun == 2


async def test_nothing_is_begun_again_at_the_end() -> None:
    """Told to stop while the database is away, work ends."""
    stop, begun = asyncio.Event(), 0

    async def away() -> None:
        nonlocal begun
        begun += 1
        stop.set()
        raise LedgerUnavailable("away")

    await asyncio.wait_for(run_again(away, stop, what="a test"), 5)
    assert begun == 1


async def test_two_who_edit_an_exam_change_what_they_change(engine: Engine) -> None:
    """Both have read it before: neither writes back what the other has changed."""
    exam = await create_exam(engine, facility="NORTH", patient=PATIENT, actor="t")
    async with engine.ledger.transaction():
        await edit_exam(engine, exam, actor="a", body_part="CHEST")
        task = outside(edit_exam(engine, exam, actor="b", priority=Priority.STAT))
        await asyncio.wait({task}, timeout=0.4)
    assert await task == await exam_by_id(engine.ledger, exam.id)
    assert (task.result().body_part, task.result().priority) == ("CHEST", Priority.STAT)


async def test_a_study_is_decided_on_as_a_whole(engine: Engine) -> None:
    """While images of one identity come, another identity of the Study waits."""
    await take_records(engine, [arrived()])
    (held,) = await find_holds(engine.ledger)

    async def decide() -> str:
        async with engine.ledger.transaction():
            return str((await lock_study(engine.ledger, held.study))["state"])

    exam = await create_exam(engine, facility="NORTH", patient=PATIENT, actor="t")
    async with engine.ledger.transaction():
        await take_records(engine, [arrived(exam)])
        task = outside(decide())
        await asyncio.wait({task}, timeout=0.4)
        assert not task.done()
    assert await task == "held"


async def test_two_instance_holds_of_a_study(engine: Engine, clinic: Any) -> None:
    """Each is decided on by itself: who has the first and wants the second meets no ring."""
    await clinic.arrive(1, 2)
    await clinic.arrive(1, 2, text="x")
    first, second = sorted(hold.id for hold in await find_holds(engine.ledger))
    async with engine.ledger.transaction():
        await hold_by_id(engine.ledger, first, lock=True)
        task = outside(reject_hold(engine, second, reason="r", actor="a"))
        await asyncio.wait({task}, timeout=0.5)
        await hold_by_id(engine.ledger, second, lock=True)
    await task
    assert [hold.id for hold in await find_holds(engine.ledger)] == [first]
