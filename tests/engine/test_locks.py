"""Two at once: each of these runs two real transactions, the second while the first is open."""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from rso.core.errors import ExamError, MatchingError
from rso.core.exam import Exam, ExamStatus, Patient
from rso.core.matching import IncomingStudy
from rso.core.transport import Kind
from rso.engine.context import Engine
from rso.engine.exams import cancel_exam, create_exam
from rso.engine.holds import create_from_hold, recall_hold, release_hold
from rso.engine.matcher import link_study, take_study
from rso.engine.notes import exam_notes, keep_note
from rso.engine.requests import change_request, request_of
from rso.engine.router import NO_DESTINATION, retry_routing
from rso.engine.settle import conclude, settle_exams
from rso.ledger import new_id, tables
from rso.ledger.deliveries import (
    Answer,
    add_items,
    claim_items,
    complete_items,
    deliveries_of,
    ensure_delivery,
)
from rso.ledger.exams import exam_by_id, lock_exams, now, set_status
from rso.ledger.holds import close_hold, find_holds, open_hold
from rso.ledger.studies import upsert_studies

PATIENT = Patient(name="DOE^JANE", patient_id="P-1", birth_date="19700131")


async def made(engine: Engine) -> Exam:
    """A requested exam."""
    return await create_exam(engine, facility="NORTH", patient=PATIENT, actor="t")


async def study(engine: Engine, state: str, exam: str | None = None, count: int = 3) -> str:
    """A Study of so many instances; returns its key."""
    incoming = IncomingStudy(
        study_instance_uid=f"1.2.{int(new_id()[-12:], 16)}", patient=PATIENT, kind=Kind.TECHNICIAN
    )
    rows = await upsert_studies(engine.ledger, "NORTH", [(incoming, "")])
    key = str(next(iter(rows.values()))["id"])
    await engine.ledger.execute(
        "UPDATE study SET state = ?, exam = ? WHERE id = ?", state, exam, key
    )
    await instances(engine, key, count)
    return key


async def instances(engine: Engine, study_id: str, count: int) -> list[str]:
    """Rows of instances of a Study; returns their keys."""
    rows: list[dict[str, Any]] = [
        {
            "id": new_id(), "facility": "NORTH", "study": study_id,
            "sop_instance_uid": f"1.3.{int(new_id()[-12:], 16)}.{index}", "sop_class_uid": "1.2",
            "series_instance_uid": "1.2", "transfer_syntax_uid": "1.2", "digest": new_id(),
            "size": 1, "batch": new_id(), "received_at": now(),
        }
        for index in range(count)
    ]  # fmt: skip
    await engine.ledger.insert_rows(tables.Instance, rows)
    return [row["id"] for row in rows]


async def held(engine: Engine, study_id: str, reason: str = "no exam") -> str:
    """An open hold on a Study; returns its key."""
    hold = await open_hold(
        engine.ledger, kind="study", facility="NORTH", study=study_id, reason=reason
    )
    assert hold is not None
    return hold


@contextlib.asynccontextmanager
async def meanwhile(
    engine: Engine, first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Any]
) -> AsyncIterator[asyncio.Task[Any]]:
    """Begin ``second`` when ``first`` is done but not committed; yields it after the commit."""
    async with engine.ledger.transaction():
        await first
        # Of a context of its own: it does not join this transaction.
        task = asyncio.create_task(second, context=contextvars.Context())
        await asyncio.wait({task}, timeout=0.4)
    await asyncio.wait({task})
    yield task


async def queued(engine: Engine, exam: Exam) -> int:
    """How many items wait for their destinations."""
    rows = await engine.ledger.fetch(
        "SELECT count(*) AS n FROM delivery_item d JOIN delivery v ON v.id = d.delivery"
        " WHERE v.exam = ? AND d.state = 'pending'",
        exam.id,
    )
    return int(rows[0]["n"])


async def test_two_holds_of_one_study_lead_to_one_exam(engine: Engine) -> None:
    """Held for two reasons: where one is released, the other leads to no other exam."""
    one, other = await made(engine), await made(engine)
    key = await study(engine, "held")
    first, second = await held(engine, key), await held(engine, key, "another reason")
    assert await release_hold(engine, first, one.number, reason="hers", actor="a")
    with pytest.raises(MatchingError, match="belongs to another exam; recall it there first"):
        await release_hold(engine, second, other.number, reason="no, theirs", actor="b")
    assert (await queued(engine, one), await queued(engine, other)) == (3, 0)
    await recall_hold(engine, first, reason="it was theirs", actor="b")
    assert await queued(engine, one) == 0
    assert await release_hold(engine, second, other.number, reason="theirs", actor="b")
    assert (await queued(engine, one), await queued(engine, other)) == (0, 3)


async def test_a_hold_is_released_once(engine: Engine) -> None:
    """Two release it to different exams at once: the second is told, and one exam is sent."""
    one, other = await made(engine), await made(engine)
    hold = await held(engine, await study(engine, "held"))
    second = release_hold(engine, hold, other.number, reason="mine", actor="b")
    first = release_hold(engine, hold, one.number, reason="mine", actor="a")
    async with meanwhile(engine, first, second) as task:
        with pytest.raises(MatchingError, match="released already"):
            await task
    assert (await queued(engine, one), await queued(engine, other)) == (3, 0)


async def test_a_double_click_makes_one_exam(engine: Engine) -> None:
    """The second press is told that the hold is decided."""
    hold = await held(engine, await study(engine, "held"))
    first, second = (create_from_hold(engine, hold, reason="", actor="a") for _ in range(2))
    async with meanwhile(engine, first, second) as task:
        with pytest.raises(MatchingError, match="created already"):
            await task
    rows = await engine.ledger.fetch("SELECT count(*) AS n FROM exam")
    assert rows[0]["n"] == 1


async def test_a_release_is_recalled_once(engine: Engine) -> None:
    """Two recall it at once: it is said once, and held once."""
    exam = await made(engine)
    hold = await held(engine, await study(engine, "held"))
    assert await release_hold(engine, hold, exam.number, reason="r", actor="a")
    first, second = (recall_hold(engine, hold, reason="wrong", actor=who) for who in "ab")
    async with meanwhile(engine, first, second) as task:
        with pytest.raises(MatchingError, match="recalled"):
            await task
    told = await engine.ledger.fetch(
        "SELECT count(*) AS n FROM audit WHERE action = 'release recalled'"
    )
    assert told[0]["n"] == 1


async def test_routing_leaves_a_hold_that_a_person_decides(engine: Engine) -> None:
    """A destination fits again while somebody rejects the hold: their word stays."""
    exam = await made(engine)
    hold = await held(engine, await study(engine, "matched", exam.id), NO_DESTINATION)
    first = close_hold(
        engine.ledger, hold, state="rejected", actor="a", resolution="no", exam=None
    )  # fmt: skip
    async with meanwhile(engine, first, retry_routing(engine)) as task:
        assert await task == 0
    rows = await engine.ledger.fetch("SELECT state, resolved_by FROM hold WHERE id = ?", hold)
    assert rows == [{"state": "rejected", "resolved_by": "a"}]


async def test_notes_and_fields_of_a_request_are_all_kept(engine: Engine) -> None:
    """Two notes and a field that are written at once are there afterwards."""
    exam = await made(engine)

    async def change() -> None:
        async with engine.ledger.transaction():
            await change_request(engine.ledger, exam, {"history": "none"})

    first = keep_note(engine.ledger, exam, "a", "one")
    async with meanwhile(engine, first, keep_note(engine.ledger, exam, "b", "two")) as task:
        await task
    async with meanwhile(engine, keep_note(engine.ledger, exam, "c", "three"), change()) as task:
        await task
    assert [note["note"] for note in await exam_notes(engine.ledger, exam)] == [
        "three", "two", "one",
    ]  # fmt: skip
    assert (await request_of(engine.ledger, exam))["history"] == "none"


async def status_of(engine: Engine, exam: Exam) -> str:
    """As the ledger has it."""
    rows = await engine.ledger.fetch("SELECT status FROM exam WHERE id = ?", exam.id)
    return str(rows[0]["status"])


async def told(engine: Engine, event: str) -> int:
    """How often an event was noted."""
    rows = await engine.ledger.fetch("SELECT count(*) AS n FROM outbox WHERE event = ?", event)
    return int(rows[0]["n"])


async def receiving(engine: Engine, count: int = 3) -> tuple[Exam, str]:
    """An exam whose images have come and are quiet, and its Study."""
    exam = await made(engine)
    key = await study(engine, "matched", exam.id, count)
    await link_study(engine, exam, key)
    await engine.ledger.execute(
        "UPDATE exam SET last_instance_at = ? WHERE id = ?", now() - timedelta(days=1), exam.id
    )
    found = await exam_by_id(engine.ledger, exam.id)
    assert found is not None
    return found, key


async def test_settling_leaves_a_cancelled_exam(engine: Engine) -> None:
    """It is cancelled after settling has looked: it stays so, and nobody hears that it settled."""
    exam, _ = await receiving(engine)
    first = cancel_exam(engine, exam, actor="a", reason="r")
    async with meanwhile(engine, first, settle_exams(engine)) as task:
        assert await task == 0
    assert await status_of(engine, exam) == "cancelled"
    assert await told(engine, "exam_settled") == 0


async def test_settling_waits_for_what_comes(engine: Engine) -> None:
    """An image comes after settling has looked: the exam is not quiet."""
    exam, key = await receiving(engine)
    first = link_study(engine, exam, key, await instances(engine, key, 1))
    async with meanwhile(engine, first, settle_exams(engine)) as task:
        assert await task == 0
    assert await status_of(engine, exam) == "receiving"


async def test_cancelling_leaves_a_delivered_exam(engine: Engine) -> None:
    """It is delivered while the page that cancels it is open: it says so and stays delivered."""
    exam, _ = await receiving(engine)
    first = set_status(engine.ledger, exam.id, ExamStatus.DELIVERED)
    second = cancel_exam(engine, exam, actor="a", reason="r")
    async with meanwhile(engine, first, second) as task:
        with pytest.raises(ExamError, match="delivered cannot become cancelled"):
            await task
    assert await status_of(engine, exam) == "delivered"


async def test_an_exam_is_cancelled_once(engine: Engine) -> None:
    """A double click is one entry of the audit."""
    exam, _ = await receiving(engine)
    first, second = (cancel_exam(engine, exam, actor="a", reason="r") for _ in range(2))
    async with meanwhile(engine, first, second) as task:
        await task
    rows = await engine.ledger.fetch("SELECT id FROM audit WHERE action = 'exam cancelled'")
    assert len(rows) == 1


async def test_a_late_image_opens_no_cancelled_exam(engine: Engine) -> None:
    """It comes while the exam is cancelled: it is held, and nothing is sent."""
    exam, key = await receiving(engine)
    fresh = await instances(engine, key, 1)

    async def late() -> None:
        async with engine.ledger.transaction():
            await take_study(engine, key, fresh)

    first = cancel_exam(engine, exam, actor="a", reason="r")
    async with meanwhile(engine, first, late()) as task:
        await task
    assert await status_of(engine, exam) == "cancelled"
    assert [hold.reason for hold in await find_holds(engine.ledger)] == ["late"]
    assert await queued(engine, exam) == 0


async def answers_of(engine: Engine, exam: Exam, owner: str, count: int) -> list[Answer]:
    """Items that ``owner`` has sent and the destination has taken, not yet journalled."""
    rows = await claim_items(engine.ledger, "R-PACS", owner, limit=count, seconds=60)
    assert len(rows) == count
    assert {row["exam"] for row in rows} == {exam.id}
    return [
        Answer(item=row["item"], delivery=row["delivery"], instance=row["instance"],
               state="acknowledged", code="0000", attempts=1)
        for row in rows
    ]  # fmt: skip


async def journal(engine: Engine, owner: str, answers: list[Answer]) -> None:
    """As a courier does."""
    async with engine.ledger.transaction():
        changed = await complete_items(engine.ledger, owner, answers)
        marks = ",".join("?" * len(changed))
        rows = await engine.ledger.fetch(
            f"SELECT exam FROM delivery WHERE id IN ({marks})",
            *changed,
        )
        await conclude(engine, [row["exam"] for row in rows])


async def delivery_of(engine: Engine, exam: Exam, destination: str = "R-PACS") -> tuple[Any, ...]:
    """State, acknowledged and total of a delivery."""
    found = {d["destination"]: d for d in await deliveries_of(engine.ledger, exam.id)}[destination]
    return found["state"], found["acknowledged"], found["total"]


async def test_two_nodes_journal_the_last_answers_of_a_delivery(engine: Engine) -> None:
    """Each counts the other's: the exam is delivered."""
    exam, _ = await receiving(engine, 10)
    await settle_exams(engine)
    one = await answers_of(engine, exam, "one", 5)
    two = await answers_of(engine, exam, "two", 5)
    first, second = journal(engine, "one", one), journal(engine, "two", two)
    async with meanwhile(engine, first, second) as task:
        await task
    assert await delivery_of(engine, exam) == ("delivered", 10, 10)
    assert await status_of(engine, exam) == "delivered"


async def test_late_images_come_while_the_last_old_ones_are_journalled(engine: Engine) -> None:
    """The delivery is not done while they wait."""
    exam, key = await receiving(engine, 3)
    await settle_exams(engine)
    answers = await answers_of(engine, exam, "one", 3)
    first = link_study(engine, exam, key, await instances(engine, key, 10))
    async with meanwhile(engine, first, journal(engine, "one", answers)) as task:
        await task
    assert await delivery_of(engine, exam) == ("sending", 3, 13)
    assert await status_of(engine, exam) == "receiving"


async def test_two_destinations_are_done_at_once(engine: Engine) -> None:
    """Each sees the other done or is seen: the exam is delivered."""
    exam, key = await receiving(engine, 1)
    rows = await engine.ledger.fetch("SELECT id FROM instance WHERE study = ?", key)
    other = await ensure_delivery(engine.ledger, exam.id, "OTHER", 2)
    await add_items(engine.ledger, other, "OTHER", [row["id"] for row in rows], 2)
    await settle_exams(engine)
    answers = await answers_of(engine, exam, "one", 1)
    items = await claim_items(engine.ledger, "OTHER", "two", limit=1, seconds=60)
    others = [structs.replace(answers[0], item=items[0]["item"], delivery=other)]
    first, second = journal(engine, "one", answers), journal(engine, "two", others)
    async with meanwhile(engine, first, second) as task:
        await task
    assert await status_of(engine, exam) == "delivered"


async def test_an_exam_settles_while_its_last_answer_is_journalled(engine: Engine) -> None:
    """Whichever comes second declares it delivered."""
    exam, _ = await receiving(engine, 1)
    answers = await answers_of(engine, exam, "one", 1)
    async with meanwhile(engine, settle_exams(engine), journal(engine, "one", answers)) as task:
        await task
    assert await status_of(engine, exam) == "delivered"


async def test_an_answer_waits_for_its_exam_before_its_delivery(engine: Engine) -> None:
    """Intake has the exam and goes on to its deliveries: neither waits for the other in a ring."""
    exam, key = await receiving(engine, 3)
    answers = await answers_of(engine, exam, "one", 3)
    fresh = await instances(engine, key, 2)
    async with engine.ledger.transaction():
        await lock_exams(engine.ledger, [exam.id])
        task = asyncio.create_task(journal(engine, "one", answers), context=contextvars.Context())
        await asyncio.wait({task}, timeout=0.4)
        await link_study(engine, exam, key, fresh)
    await task
    assert await delivery_of(engine, exam) == ("sending", 3, 5)
