"""The outbox of messages, on both databases, with a clock and a provider that do as told."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs

from rso.core.errors import ConfigError, PermanentTransportError, TransientTransportError
from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority
from rso.core.notifying import EVENTS
from rso.engine.notes import exam_notes, keep_note
from rso.engine.notices import notice_of, write_message
from rso.engine.notify import (
    exam_notifications,
    notify_event,
    notify_people,
    reachable,
    reachable_at,
    retry_notification,
)
from rso.ledger import new_id
from rso.ledger.contacts import add_contact, confirm_contact, contacts_of, leave
from rso.ledger.exams import now
from rso.ledger.holds import open_hold
from rso.ledger.site import load_site


async def test_people_are_told_once_and_privately(world: Any) -> None:
    """Ticked channels only, within the facility, pressed twice told once; the note stays here."""
    exam = await world.exam(Priority.STAT)
    chosen = {"tech@example.org": ["sms", "email"], "south@example.org": ["sms"]}
    for _ in range(2):
        await notify_people(
            world.engine, exam, chosen, actor="c@example.org", note="Jane Doe is in pain"
        )
    await world.run()
    assert [m.address for m in world.sms.sent] == ["+12025550100"]
    assert [m.address for m in world.email.sent] == ["tech@example.org"]
    said = world.sms.sent[0].text + world.email.sent[0].text + world.email.sent[0].html
    assert "Jane" not in said
    assert exam.number[-4:] in said
    assert await world.states() == ["accepted", "accepted"]
    notes = await exam_notes(world.ledger, exam)
    assert [n["note"] for n in notes] == ["Jane Doe is in pain"]
    people = await reachable(world.engine, "NORTH")
    assert {p["email"] for p in people} == {"tech@example.org", "boss@example.org"}


async def test_a_note_stays_whoever_can_be_told(world: Any) -> None:
    """Another facility's person, a stranger, another channel: each is said to be left out."""
    exam = await world.exam()
    chosen = {"south@example.org": ["sms"], "nobody@example.org": ["sms"],
              "boss@example.org": ["sms"]}  # fmt: skip
    told = await notify_people(world.engine, exam, chosen, actor="c", note="waits in room 2")
    assert (told.messages, told.people, told.left_out) == (0, (), tuple(chosen))
    assert [n["note"] for n in await exam_notes(world.ledger, exam)] == ["waits in room 2"]
    for messages in (1, 0):  # pressed twice: the same people, one message
        told = await notify_people(
            world.engine, exam, {"tech@example.org": ["sms"], **chosen}, actor="c"
        )
        assert (told.messages, told.people) == (messages, ("tech@example.org",))
    both = {
        p["email"]: p["facilities"] for p in await reachable_at(world.engine, ["NORTH", "SOUTH"])
    }
    assert both == {"tech@example.org": ["NORTH"], "south@example.org": ["SOUTH"],
                    "boss@example.org": ["NORTH", "SOUTH"]}  # fmt: skip


async def test_an_event_is_told_once(world: Any) -> None:
    """However often it happens; on the first channel of those who want it."""
    exam = await world.exam()
    for _ in range(3):
        await notify_event(world.engine, "exam_created", exam)
    await world.run()
    assert [m.address for m in world.sms.sent] == ["+12025550100"]
    assert not world.email.sent


async def test_a_hold_without_an_exam_tells_its_facility(world: Any) -> None:
    """Coordinators of that facility, again for the next one, and not for each of a flood."""
    own = {"email": "own@example.org", "role": "coordinator", "facilities": ["SOUTH"],
           "contacts": [{"channel": "sms", "address": "+12025550177"}]}  # fmt: skip
    await load_site(world.ledger, {"user": [own]})
    for _ in range(3):
        await open_hold(
            world.ledger, kind="study", facility="SOUTH", study=new_id(), row=9,
            reason="wrong number", alarm=False, evidence={},
        )  # fmt: skip
    holds = await world.ledger.fetch("SELECT id FROM hold")
    for row in holds:
        await notify_event(world.engine, "study_held", None, {"hold": str(row["id"])})
    await world.run()
    assert [m.address for m in world.sms.sent] == ["+12025550177"]
    assert [m.address for m in world.email.sent] == ["boss@example.org"]
    # The next window has its own message.
    await world.ledger.execute("UPDATE outbox SET dedupe = 'earlier:' || dedupe")
    await notify_event(world.engine, "study_held", None, {"hold": str(holds[0]["id"])})
    await world.run()
    assert len(world.sms.sent) == 2


async def test_another_cause_is_told_again(world: Any) -> None:
    """Another answer of a destination is no repetition of the first."""
    exam = await world.exam()
    for code in ("C000", "C000", "A700"):
        await notify_event(
            world.engine, "delivery_failed", exam, {"destination": "PACS", "code": code}
        )
    await world.run()
    assert len(world.email.sent) == 2


async def test_another_hold_is_told_again(world: Any) -> None:
    """A second hold that suspects the same exam is a matter of its own; the same one is not."""
    exam = await world.exam()
    for hold in ("first", "first", "second"):
        await notify_event(world.engine, "study_held", exam, {"hold": hold, "reason": "x"})
    rows = await exam_notifications(world.ledger, exam.id)
    told = [row["recipient"] for row in rows if row["event"] == "study_held"]
    assert told
    assert all(told.count(person) == 2 for person in told)


async def test_a_provider_that_is_away_hands_over_to_the_next(world: Any) -> None:
    """After four tries the person's next channel; each try is in the history, masked."""
    exam = await world.exam()
    world.sms.fault = TransientTransportError("the provider cannot be reached")
    await notify_people(world.engine, exam, {"tech@example.org": ["sms"]}, actor="c")
    at = now()
    for _ in range(5):
        await world.run(at)
        at += timedelta(minutes=2)
    assert [m.address for m in world.email.sent] == ["tech@example.org"]
    row = (await exam_notifications(world.ledger, exam.id))[0]
    assert row["state"] == "accepted"
    assert len(row["history"]) == 5
    assert "2025550100" not in str(row["history"])
    # It comes back: nothing that was said elsewhere is said again.
    world.sms.fault = None
    await world.run(at + timedelta(hours=1))
    assert not world.sms.sent


async def test_nobody_left_is_a_failure_that_can_be_tried_again(world: Any) -> None:
    """A permanent refusal on every channel ends it, in the audit; a person may start it anew."""
    exam = await world.exam()
    world.sms.fault = world.email.fault = PermanentTransportError("the provider answered 550")
    await notify_people(world.engine, exam, {"tech@example.org": ["sms"]}, actor="c")
    await world.run()
    assert await world.states() == ["failed"]
    audit = await world.ledger.fetch("SELECT action FROM audit WHERE exam = ?", exam.number)
    assert "notification failed" in {row["action"] for row in audit}
    world.email.fault = None
    row = (await exam_notifications(world.ledger))[0]
    for _ in range(2):  # pressed twice is once
        await retry_notification(world.ledger, row["id"], actor="lead@example.org")
    await world.run()
    assert await world.states() == ["accepted"]
    (again,) = await world.ledger.fetch("SELECT * FROM audit WHERE action = 'message sent again'")
    assert (again["actor"], again["exam"]) == ("lead@example.org", exam.number)
    assert "tech@example.org" in again["facts"]


async def test_a_note_is_in_the_audit_without_its_words(world: Any) -> None:
    """Who wrote it, on which exam; an empty one is none, one pressed twice is one."""
    exam = await world.exam()
    for note in ("Jane Doe is in pain", " ", "Jane Doe is in pain"):
        await keep_note(world.ledger, exam, "c@example.org", note)
    (entry,) = await world.ledger.fetch("SELECT * FROM audit WHERE action = 'note added'")
    assert (entry["actor"], entry["exam"]) == ("c@example.org", exam.number)
    assert "Jane" not in str(entry)


async def test_every_note_is_kept(world: Any) -> None:
    """However many there are, the newest first; those from before notes had rows come last."""
    exam = await world.exam()
    old = {"at": "2026-03-01T12:00:00+00:00", "by": "a@example.org", "note": "old"}
    await world.ledger.execute(
        "UPDATE exam SET request = ? WHERE id = ?",
        msgspec.json.encode({"history": "none", "notes": [old]}).decode(), exam.id,
    )  # fmt: skip
    for number in range(60):
        await keep_note(world.ledger, exam, "c@example.org", f"note {number}")
    notes = await exam_notes(world.ledger, exam)
    assert [n["note"] for n in notes] == [*(f"note {n}" for n in reversed(range(60))), "old"]
    assert notes[-1] == {**old, "at": datetime(2026, 3, 1, 12, tzinfo=UTC)}
    assert notes[0]["by"] == "c@example.org"


async def test_messages_come_a_page_at_a_time(world: Any) -> None:
    """Each once, the newest first, those of one moment too, within one's facilities."""
    exam, people = await world.exam(), {"tech@example.org": ["sms"], "boss@example.org": ["email"]}
    await notify_people(world.engine, exam, people, actor="c")
    await notify_people(world.engine, await world.exam(), people, actor="c")
    await notify_people(world.engine, await world.exam(), people, actor="c")
    moments = [now() - timedelta(minutes=n // 3) for n in range(6)]
    rows = await world.ledger.fetch("SELECT id FROM outbox WHERE kind = 'notify' ORDER BY id")
    for row, at in zip(rows, moments, strict=True):
        await world.ledger.execute("UPDATE outbox SET created_at = ? WHERE id = ?", at, row["id"])
    found, before = list[str](), None
    while page := await exam_notifications(
        world.ledger, facilities=["NORTH"], before=before, limit=2
    ):
        found += [str(row["id"]) for row in page]
        before = page[-1]["created_at"], str(page[-1]["id"])
    ids = [str(row["id"]) for row in rows]
    assert set(found) == set(ids)
    assert len(found) == len(ids)
    assert found == [str(r["id"]) for r in await exam_notifications(world.ledger)]
    assert await exam_notifications(world.ledger, facilities=["SOUTH"], message=ids[0]) == []
    (one,) = await exam_notifications(world.ledger, facilities=["NORTH"], message=ids[0])
    assert str(one["id"]) == ids[0]


async def test_quiet_hours_hold_back_what_can_wait(world: Any) -> None:
    """A routine message waits for the morning; STAT does not."""
    night = now().replace(hour=23, minute=30)
    routine, stat = await world.exam(), await world.exam(Priority.STAT)
    for exam in (routine, stat):
        await notify_people(world.engine, exam, {"boss@example.org": ["email"]}, actor="c")
    await world.ledger.execute("UPDATE outbox SET next_at = ?, created_at = ?", night, night)
    await world.run(night)
    assert [m.exam_number.replace("-", "") for m in world.email.sent] == [stat.number]
    await world.run(night + timedelta(hours=7, minutes=20))
    assert len(world.email.sent) == 1
    await world.run(night + timedelta(hours=7, minutes=31))
    assert len(world.email.sent) == 2


async def test_old_news_is_not_sent(world: Any) -> None:
    """After an outage of a day nobody gets yesterday's flood."""
    exam = await world.exam()
    await notify_people(world.engine, exam, {"tech@example.org": ["sms"]}, actor="c")
    await world.run(now() + timedelta(hours=13))
    assert not world.sms.sent
    assert await world.states() == ["failed"]


async def test_who_left_is_left_alone(world: Any) -> None:
    """By the link of a message; the other address of the person stays."""
    contact = (await contacts_of(world.ledger, "tech@example.org"))[0]
    assert await leave(world.ledger, contact["leave_key"])
    assert not await leave(world.ledger, "")
    exam = await world.exam()
    await notify_event(world.engine, "exam_created", exam)
    await world.run()
    assert not world.sms.sent
    assert f"/leave/{(await contacts_of(world.ledger, 'tech@example.org'))[1]['leave_key']}" in (
        world.email.sent[0].text
    )


async def test_an_address_is_proven_by_its_code(world: Any) -> None:
    """Not before; five wrong codes end it, and nobody confirms another's."""
    code = await add_contact(world.ledger, "tech@example.org", "fax", "+12025550101")
    contact = next(
        c for c in await contacts_of(world.ledger, "tech@example.org") if c["channel"] == "fax"
    )
    people = {p["email"]: p["channels"] for p in await reachable(world.engine, "NORTH")}
    assert people["tech@example.org"] == ["sms", "email"]
    assert not await confirm_contact(world.ledger, "boss@example.org", contact["id"], code)
    assert not await confirm_contact(world.ledger, "tech@example.org", contact["id"], "nope")
    assert await confirm_contact(world.ledger, "tech@example.org", contact["id"], f" {code} ")
    code = await add_contact(world.ledger, "tech@example.org", "fax", "+12025550102")
    contact = (await contacts_of(world.ledger, "tech@example.org"))[-1]
    for _ in range(5):
        assert not await confirm_contact(world.ledger, "tech@example.org", contact["id"], "nope")
    assert not await confirm_contact(world.ledger, "tech@example.org", contact["id"], code)


@pytest.mark.parametrize(("fate", "state"), [("delivered", "delivered"), ("failed", "failed")])
async def test_a_fax_is_followed(world: Any, fate: str, state: str) -> None:
    """Until its provider knows; given up, it is not said to be there."""
    code = await add_contact(world.ledger, "tech@example.org", "fax", "+12025550101")
    contact = (await contacts_of(world.ledger, "tech@example.org"))[-1]
    await confirm_contact(world.ledger, "tech@example.org", contact["id"], code)
    exam = await world.exam()
    chosen = {"tech@example.org": ["sms", "email", "fax"]}
    await notify_people(world.engine, exam, chosen, actor="c")
    await world.run()
    fax = next(r for r in await exam_notifications(world.ledger) if r["channel"] == "fax")
    assert (fax["state"], fax["ticket"]) == ("accepted", "job 1")
    world.fax.fate = fate
    await world.run(now() + timedelta(minutes=1))
    fax = next(r for r in await exam_notifications(world.ledger) if r["channel"] == "fax")
    assert fax["state"] == state
    assert len(world.fax.sent) == 1


async def test_a_lost_worker_is_taken_over(world: Any) -> None:
    """A lease runs out, and the message goes."""
    exam = await world.exam()
    await notify_people(world.engine, exam, {"tech@example.org": ["sms"]}, actor="c")
    await world.ledger.execute(
        "UPDATE outbox SET lease_owner = 'dead', lease_until = ?", now() + timedelta(seconds=100)
    )
    await world.run()
    assert not world.sms.sent
    await world.run(now() + timedelta(seconds=101))
    assert len(world.sms.sent) == 1


async def test_contacts_in_the_site_file_are_checked(world: Any) -> None:
    """An event that does not exist is named."""
    contact = {"channel": "sms", "address": "+1", "events": ["exam_exploded"]}
    user = {"email": "a@b", "role": "coordinator", "contacts": [contact]}
    with pytest.raises(ConfigError, match="exam_exploded"):
        await load_site(world.ledger, {"user": [user]})


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(sorted(EVENTS)), st.sampled_from(["sms", "email", "fax"]),
    st.text(min_size=3, max_size=40), st.sampled_from(list(Priority)), st.sampled_from(["en", "de"]),
)  # fmt: skip
def test_no_message_names_a_patient(
    settings_of: Any,
    tmp_path: Path,
    event: str,
    channel: str,
    secret: str,
    priority: Priority,
    language: str,
) -> None:
    """Over all events, channels and languages: nothing of the patient gets into a message."""
    sentinel = f"SENTINEL{secret}"
    exam = Exam(
        id="1", number="7Q2KM4TX9C", facility="NORTH", origin=Origin.REQUEST, status=ExamStatus.REQUESTED, priority=priority, created_at=now(),
        patient=Patient(name=f"{sentinel}^X", patient_id=sentinel, birth_date="19700131"),
        accession_number="SENTINEL", body_part=sentinel, modality="CT",
    )  # fmt: skip
    settings = settings_of(tmp_path)
    settings = structs.replace(settings, notify=structs.replace(settings.notify, language=language))
    message = write_message(
        settings, notice_of(settings, event, exam), channel=channel, address="a@b", key="1"
    )
    said = f"{message.subject} {message.text} {message.html} {message.exam_number}"
    assert "SENTINEL" not in said
    assert "19700131" not in said


def test_a_deployers_template_wins(settings_of: Any, tmp_path: Path) -> None:
    """By language and channel; a broken one is named."""
    settings = settings_of(tmp_path)
    own = tmp_path / "own"
    (own / "en").mkdir(parents=True)
    (own / "en" / "manual.sms.txt").write_text("x\n\nCall {{ facility }} about {{ tail }}")
    (own / "en" / "test.txt").write_text("x\n\n{{ patient }}")
    settings = structs.replace(
        settings, notify=structs.replace(settings.notify, templates=str(own))
    )
    exam = Exam(
        id="1",
        number="7Q2KM4TX9C",
        facility="NORTH",
        origin=Origin.REQUEST,
        status=ExamStatus.REQUESTED,
        patient=Patient(),
        created_at=now(),
    )
    notice = notice_of(settings, "manual", exam)
    sms = write_message(settings, notice, channel="sms", address="+1", key="1")
    assert sms.text == "Call NORTH about TX9C"
    mail = write_message(settings, notice, channel="email", address="a@b", key="1")
    assert "Sign in" in mail.text
    with pytest.raises(ConfigError, match="template of test"):
        write_message(
            settings, notice_of(settings, "test", None), channel="sms", address="+1", key="1"
        )
