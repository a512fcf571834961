"""A release is taken back: who holds another patient's images hears of it, or is to be called."""

from typing import Any

import pytest

from rso.core.exam import Exam, Patient, Priority
from rso.core.matching import IncomingStudy
from rso.core.transport import Kind
from rso.engine.escalation import escalate_due
from rso.engine.exam_edit import edit_exam
from rso.engine.holds import recall_hold, release_hold, show_hold
from rso.engine.late import note_late
from rso.engine.matcher import match_study
from rso.engine.notify import exam_notifications
from rso.engine.outbox import deliver_events
from rso.engine.recall_notice import Heard, told_of_recall
from rso.ledger import new_id, tables
from rso.ledger.deliveries import Answer
from rso.ledger.exams import exam_by_id, now
from rso.ledger.site import load_site
from rso.ledger.studies import upsert_studies

QUIET = {"quiet": "00:00-23:59", "timezone": "UTC"}
OPTIONS = {"ae_title": "PACS", "host": "127.0.0.1", "port": 1}


async def read_by(world: Any, *contacts: dict[str, Any], **facility: Any) -> None:
    """Let R read for NORTH, with these contacts, and the coordinator have no quiet hours."""
    await load_site(
        world.ledger,
        {
            "facility": [{"code": "NORTH", "radiologists": [{"code": "R"}], **facility}],
            "radiologist": [{
                "code": "R", "contacts": list(contacts),
                "destinations": [{"code": "R-PACS", "sender": "dicom_scu", "options": OPTIONS}],
            }],
        },
    )  # fmt: skip
    await world.ledger.execute("UPDATE contact SET quiet = '' WHERE owner = 'boss@example.org'")


async def sent_wrongly(world: Any, uid: str, exam: Exam, state: str = "acknowledged") -> str:
    """A held Study with two images that was released to an exam; returns the hold."""
    ledger = world.ledger
    patient = Patient(name="ROE^MARY", patient_id=exam.number)
    study = IncomingStudy(study_instance_uid=uid, patient=patient, kind=Kind.TECHNICIAN)
    row = next(iter((await upsert_studies(ledger, "NORTH", [(study, "")])).values()))
    await ledger.insert_rows(
        tables.Instance,
        [
            {"id": new_id(), "facility": "NORTH", "study": row["id"],
             "sop_instance_uid": f"{uid}.{n}", "sop_class_uid": "1.2",
             "series_instance_uid": "1.2", "transfer_syntax_uid": "1.2", "digest": new_id(),
             "size": 1, "batch": new_id(), "received_at": now()}
            for n in range(2)
        ],
    )  # fmt: skip
    async with ledger.transaction():
        await match_study(world.engine, row)
    hold = await ledger.fetch("SELECT id FROM hold WHERE study = ?", row["id"])
    assert await release_hold(
        world.engine, hold[0]["id"], exam.number, reason="hers", actor="boss@example.org"
    )
    await ledger.execute(
        "UPDATE delivery_item SET state = ? WHERE instance IN"
        " (SELECT id FROM instance WHERE study = ?)",
        state,
        row["id"],
    )
    return str(hold[0]["id"])


async def recall(world: Any, hold: str) -> tuple[int, Heard | None]:
    """Take it back; how much was sent, and who hears of it."""
    sent = await recall_hold(world.engine, hold, reason="not hers", actor="boss@example.org")
    found = await told_of_recall(world.ledger, await show_hold(world.ledger, hold))
    while await deliver_events(world.engine, "test"):  # what the outbox tells is said already
        pass
    return sent, found


async def messages(world: Any, exam: Exam, event: str = "release_recalled") -> list[str]:
    """Who has a message of the exam's recalls."""
    rows = await exam_notifications(world.ledger, exam.id)
    return sorted(row["recipient"] for row in rows if row["event"] == event)


async def test_a_radiologist_hears_of_a_recall_at_any_priority(world: Any) -> None:
    """Whatever they chose to hear, in words of its own; and of the next on the same exam too."""
    await read_by(
        world, {"channel": "email", "address": "r@example.org", "events": ["exam_delivered"]}
    )
    exam = await world.exam(Priority.ROUTINE)
    sent, told = await recall(world, await sent_wrongly(world, "1.2", exam))
    assert sent == 2
    assert told is not None
    assert {hearer.name for hearer in told.now} == {"R", "boss@example.org"}
    assert not told.missed
    await recall(world, await sent_wrongly(world, "1.3", exam))
    assert await messages(world, exam) == ["R", "R", "boss@example.org", "boss@example.org"]
    await world.run()
    said = next(m for m in world.email.sent if m.address == "r@example.org")
    assert said.subject == "Images taken back: do not read"
    assert "MARY" not in said.text + said.html


async def test_who_cannot_be_told_is_named(world: Any) -> None:
    """No contact, a message that failed, or quiet hours: the radiologist has to be called."""
    await read_by(world)
    exam = await world.exam()
    _, told = await recall(world, await sent_wrongly(world, "1.2", exam))
    assert told is not None
    assert told.missed == ("R",)
    await read_by(world, {"channel": "email", "address": "r@example.org", **QUIET})
    hold = await sent_wrongly(world, "1.3", exam)
    _, told = await recall(world, hold)
    assert told is not None
    assert [hearer.name for hearer in told.later] == ["R"]
    assert told.missed == ("R",)
    await world.ledger.execute("UPDATE contact SET breaks_quiet = 'yes'")
    told = await told_of_recall(world.ledger, await show_hold(world.ledger, hold))
    assert told is not None
    assert not told.missed
    await world.ledger.execute("UPDATE outbox SET state = 'failed' WHERE kind = 'notify'")
    told = await told_of_recall(world.ledger, await show_hold(world.ledger, hold))
    assert told is not None
    assert (told.now, told.missed) == ((), ("R",))


async def test_those_on_call_are_told_until_somebody_sees_to_it(world: Any) -> None:
    """The hold of the recall is decided already; the images at the destination are not gone."""
    on_call = [{"person": "tech@example.org"}]
    await read_by(world, on_call=on_call)
    exam = await world.exam()
    _, told = await recall(world, await sent_wrongly(world, "1.2", exam))
    assert told is not None
    assert told.on_call
    await escalate_due(world.engine, "test")
    assert "tech@example.org" in await messages(world, exam)


async def test_what_never_left_is_a_hold_as_any_other(world: Any) -> None:
    """Nobody has to remove anything: coordinators are told that it waits, the radiologist not."""
    await read_by(world, {"channel": "email", "address": "r@example.org"})
    exam = await world.exam()
    assert await recall(world, await sent_wrongly(world, "1.2", exam, "stopped")) == (0, None)
    assert not await messages(world, exam)
    assert await messages(world, exam, "study_held") == ["boss@example.org"] * 2


@pytest.mark.parametrize("before", [0, 1])
async def test_what_left_in_the_last_moment_is_told_when_it_arrived(
    world: Any, before: int
) -> None:
    """Once, also where something had left before; the page of the hold says who was told since."""
    await read_by(world, {"channel": "email", "address": "r@example.org"})
    exam = await world.exam()
    hold = await sent_wrongly(world, "1.2", exam, "pending")
    first, item = await world.ledger.fetch("SELECT id, delivery, instance FROM delivery_item")
    if before:
        await world.ledger.execute(
            "UPDATE delivery_item SET state = 'acknowledged' WHERE id = ?", first["id"]
        )
    assert (await recall(world, hold))[0] == before
    answer = Answer(
        item=item["id"], delivery=item["delivery"], instance=item["instance"],
        state="acknowledged",
    )  # fmt: skip
    for _ in range(2):
        async with world.ledger.transaction():
            await note_late(world.engine, "R-PACS", [answer])
        await deliver_events(world.engine, "test")
    assert await messages(world, exam) == ["R", "boss@example.org"]
    told = await told_of_recall(world.ledger, await show_hold(world.ledger, hold))
    assert told is not None
    assert not told.missed


async def test_an_edit_that_takes_sent_images_out_is_told(world: Any) -> None:
    """The exam turns out to be somebody else's after its images left; a recall then is told too."""
    await read_by(world, {"channel": "email", "address": "r@example.org"})
    exam = await world.exam()
    await sent_wrongly(world, "1.2", exam)
    current = await exam_by_id(world.ledger, exam.id)
    assert current is not None
    await edit_exam(world.engine, current, actor="t", patient=Patient(name="POE^ANN"))
    while await deliver_events(world.engine, "test"):
        pass
    assert await messages(world, exam) == ["R", "boss@example.org"]
    hold = (await world.ledger.fetch("SELECT id FROM hold WHERE state = 'open'"))[0]["id"]
    await release_hold(world.engine, hold, exam.number, reason="hers", actor="t")
    await world.ledger.execute("UPDATE delivery_item SET state = 'acknowledged'")
    await recall(world, hold)
    assert await messages(world, exam) == ["R", "R", "boss@example.org", "boss@example.org"]
