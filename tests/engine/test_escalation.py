"""On call: one after another with a fake clock, until somebody says so or has seen to it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rso.core.errors import ConfigError, TransientTransportError
from rso.core.exam import Exam, Priority
from rso.engine.escalation import escalate_due, tell_overdue
from rso.engine.matters import acknowledge, exam_matters, find_matter, may_acknowledge, note_opened
from rso.engine.notify import exam_notifications, notify_event
from rso.engine.outbox import deliver_events
from rso.ledger import audit, new_id, tables
from rso.ledger.deliveries import (
    IN_QUESTION,
    Answer,
    add_items,
    claim_items,
    complete_items,
    deliveries_of,
    ensure_delivery,
    stop_items,
)
from rso.ledger.exams import now
from rso.ledger.holds import open_hold
from rso.ledger.people import Person
from rso.ledger.site import load_site
from rso.ledger.site_export import export_site
from rso.ledger.standing import STOPPED_BY

DAY = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)


def user(name: str, number: int, **contact: Any) -> dict[str, Any]:
    """A technician with a telephone."""
    return {
        "email": f"{name}@example.org", "role": "technician", "facilities": ["NORTH"],
        "contacts": [{"channel": "sms", "address": f"+120255502{number:02}", **contact}],
    }  # fmt: skip


SITE: dict[str, Any] = {
    "user": [user("ann", 1), user("bob", 2), user("cat", 3)],
    "facility": [{
        "code": "NORTH", "escalate_minutes": 5,
        "on_call": [{"person": f"{name}@example.org"} for name in ("ann", "bob", "cat")],
    }],
}  # fmt: skip


@pytest.fixture
async def duty(world: Any) -> Any:
    """Ann, then Bob, then Cat; five minutes each."""
    assert (await load_site(world.ledger, SITE))["warnings"] == []
    return world


async def pass_time(world: Any, at: datetime) -> list[str]:
    """Take a step at a moment; who has been told by SMS so far, of those on call."""
    await escalate_due(world.engine, "test", at=at)
    await world.run(at)
    return [m.address[-2:] for m in world.sms.sent if m.address.startswith("+120255502")]


async def created(world: Any, priority: Priority = Priority.STAT) -> Exam:
    """An exam of which the roles were told."""
    exam: Exam = await world.exam(priority)
    for _ in range(2):  # a repeated event changes nothing
        await notify_event(world.engine, "exam_created", exam)
    return exam


async def test_the_next_is_told_until_somebody_acknowledges(duty: Any) -> None:
    """Ann at once, Bob after five minutes, then he says so, and Cat sleeps on."""
    exam = await created(duty)
    start = now()
    assert await pass_time(duty, start) == ["01"]
    assert await pass_time(duty, start + 4 * MINUTE) == ["01"]
    assert await pass_time(duty, start + 5 * MINUTE) == ["01", "02"]
    (matter,) = await exam_matters(duty.ledger, exam.id)
    assert f"/acknowledge/{matter['id']}" in duty.sms.sent[-1].text
    assert matter["payload"]["told"] == ["ann@example.org", "bob@example.org"]
    found = await find_matter(duty.ledger, str(matter["id"]), facilities=("NORTH",))
    assert found is not None
    assert await acknowledge(duty.ledger, found, "bob@example.org")
    assert not await acknowledge(duty.ledger, found, "cat@example.org")
    assert await pass_time(duty, start + 60 * MINUTE) == ["01", "02"]
    (matter,) = await exam_matters(duty.ledger, exam.id)
    assert (matter["state"], matter["recipient"]) == ("done", "bob@example.org")
    actions = await duty.ledger.fetch("SELECT actor, action FROM audit WHERE exam = ?", exam.number)
    assert {"actor": "bob@example.org", "action": "acknowledged"} in actions
    assert await audit.verify(duty.ledger) is None


async def test_who_is_not_on_call_is_told_as_ever(duty: Any) -> None:
    """The role's message goes at once, with the same link; nobody is told twice."""
    exam = await created(duty)
    await pass_time(duty, now())
    roles = [m for m in duty.sms.sent if m.address == "+12025550100"]
    assert len(roles) == 1
    assert "/acknowledge/" in roles[0].text
    rows = await exam_notifications(duty.ledger, exam.id)
    assert len({(r["recipient"], r["event"]) for r in rows}) == len(rows)


async def test_nobody_answers(duty: Any) -> None:
    """After the last has had five minutes it is in the audit; saying so is still possible."""
    exam = await created(duty)
    start = now()
    for minutes in (0, 5, 10):
        await pass_time(duty, start + minutes * MINUTE)
    assert (await exam_matters(duty.ledger, exam.id))[0]["state"] == "queued"
    told = await pass_time(duty, start + 15 * MINUTE)
    assert told == ["01", "02", "03"]
    (matter,) = await exam_matters(duty.ledger, exam.id)
    assert matter["state"] == "failed"
    rows = await duty.ledger.fetch("SELECT action FROM audit WHERE exam = ?", exam.number)
    assert "nobody answered" in {row["action"] for row in rows}
    assert await acknowledge(duty.ledger, matter, "cat@example.org")


async def test_routine_requests_wake_nobody(duty: Any) -> None:
    """A routine exam is told to the role, and to nobody in turn."""
    exam = await created(duty, Priority.ROUTINE)
    assert await exam_matters(duty.ledger, exam.id) == []
    assert sorted(await pass_time(duty, now())) == ["01", "02", "03"]


async def test_opening_and_acting_are_as_good(duty: Any) -> None:
    """A technician opens the page, or does something; its requester's look does not count."""
    opened, acted = await created(duty), await created(duty)
    requester = Person(
        email="customer@example.org", name="", role="customer", facilities=("NORTH",)
    )
    ann = Person(email="ann@example.org", name="", role="technician", facilities=("NORTH",))
    await note_opened(duty.ledger, requester, exam=opened)
    assert (await exam_matters(duty.ledger, opened.id))[0]["state"] == "queued"
    await note_opened(duty.ledger, ann, exam=opened)
    await audit.append(
        duty.ledger, actor="cat@example.org", action="exam claimed", exam=acted.number
    )
    assert await pass_time(duty, now()) == []
    states = [
        (m["state"], m["recipient"])
        for exam in (opened, acted)
        for m in await exam_matters(duty.ledger, exam.id)
    ]
    assert states == [("done", "ann@example.org"), ("done", "cat@example.org")]


async def test_a_look_is_no_work(duty: Any) -> None:
    """An auditor who opens the exam, or a colleague by the API, ends nobody's turn."""
    exam = await created(duty)
    for action in audit.SIGHTINGS:
        await audit.append(duty.ledger, actor="cat@example.org", action=action, exam=exam.number)
    assert await pass_time(duty, now()) == ["01"]


async def test_what_goes_by_itself_ends(duty: Any) -> None:
    """Images that arrive end a request's matter, a decision ends a hold's."""
    exam = await created(duty)
    await duty.ledger.execute("UPDATE exam SET status = 'receiving' WHERE id = ?", exam.id)
    await open_hold(
        duty.ledger, kind="study", facility="NORTH", study=new_id(), row=9, reason="wrong number",
        alarm=False, evidence={},
    )  # fmt: skip
    (hold,) = await duty.ledger.fetch("SELECT id FROM hold")
    await notify_event(duty.engine, "study_held", None, {"hold": str(hold["id"])})
    start = now()
    assert await pass_time(duty, start) == ["01"]
    assert "/acknowledge/" in duty.sms.sent[-1].text
    await duty.ledger.execute("UPDATE hold SET state = 'released'")
    assert await pass_time(duty, start + 30 * MINUTE) == ["01"]
    rows = await duty.ledger.fetch("SELECT state, recipient FROM outbox WHERE kind = 'matter'")
    assert rows == [{"state": "done", "recipient": "rso"}] * 2


async def failed(world: Any, *endings: tuple[str, str]) -> Exam:
    """An exam whose images PACS answered so, and of which it is told that a delivery failed."""
    exam: Exam = await world.exam(Priority.STAT)
    await world.ledger.execute("UPDATE exam SET status = 'receiving' WHERE id = ?", exam.id)
    batch, study = new_id(), new_id()
    images = [
        {"id": new_id(), "facility": "NORTH", "study": study, "sop_instance_uid": f"1.{n}",
         "sop_class_uid": "1", "series_instance_uid": "1.2", "transfer_syntax_uid": "1.2",
         "digest": f"{exam.id}{n}", "size": 1000, "series_number": "1", "instance_number": str(n),
         "batch": batch, "received_at": now(), "conflict": False}
        for n in range(len(endings))
    ]  # fmt: skip
    await world.ledger.insert_rows(tables.Instance, images)
    delivery = await ensure_delivery(world.ledger, exam.id, "PACS", 1)
    await add_items(world.ledger, delivery, "PACS", [str(i["id"]) for i in images], 1)
    rows = await claim_items(world.ledger, "PACS", "w", limit=9, seconds=60)
    await complete_items(world.ledger, "w", [
        Answer(item=r["item"], delivery=delivery, instance=r["instance"], state=state, code=code,
               reason="no", attempts=1, next_at=now() + timedelta(hours=1))
        for r, (state, code) in zip(rows, endings, strict=True)
    ])  # fmt: skip
    await notify_event(
        world.engine, "delivery_failed", exam, {"destination": "PACS", "code": "C001"}
    )
    return exam


async def test_a_stopped_image_is_told_while_others_are_on_their_way(duty: Any) -> None:
    """PACS refuses one image for good, and another waits for its next try."""
    exam = await failed(duty, ("stopped", "C001"), ("pending", "A700"))
    assert (await deliveries_of(duty.ledger, exam.id))[0]["state"] == "waiting"
    assert await pass_time(duty, now()) == ["01"]
    await duty.ledger.execute("UPDATE delivery_item SET state = 'acknowledged'")
    assert await pass_time(duty, now() + 5 * MINUTE) == ["01"]
    (matter,) = await exam_matters(duty.ledger, exam.id)
    assert (matter["state"], matter["recipient"]) == ("done", "rso")


@pytest.mark.parametrize("reason", [IN_QUESTION, f"{STOPPED_BY}bob@example.org"])
async def test_what_a_person_or_a_question_stopped_is_no_failure(duty: Any, reason: str) -> None:
    """Nobody is woken for it once what the destination had refused arrived."""
    exam = await failed(duty, ("acknowledged", "0000"), ("pending", "A700"))
    (delivery,) = await deliveries_of(duty.ledger, exam.id)
    await stop_items(duty.ledger, delivery=delivery["id"], reason=reason)
    assert await pass_time(duty, now()) == []
    assert (await exam_matters(duty.ledger, exam.id))[0]["state"] == "done"


async def test_a_hold_that_is_opened_counts(duty: Any) -> None:
    """By somebody of the facility; a matter of another facility is out of reach."""
    await open_hold(
        duty.ledger, kind="study", facility="NORTH", study=new_id(), row=9, reason="wrong number",
        alarm=False, evidence={},
    )  # fmt: skip
    (hold,) = await duty.ledger.fetch("SELECT id FROM hold")
    await notify_event(duty.engine, "study_held", None, {"hold": str(hold["id"])})
    (row,) = await duty.ledger.fetch("SELECT id FROM outbox WHERE kind = 'matter'")
    assert await find_matter(duty.ledger, str(row["id"]), facilities=("SOUTH",)) is None
    assert await find_matter(duty.ledger, "nothing", facilities=None) is None
    matter = await find_matter(duty.ledger, str(row["id"]), facilities=None)
    assert matter is not None
    auditor = Person(email="a@example.org", name="", role="auditor", facilities=None)
    assert not may_acknowledge(auditor, matter)
    bob = Person(email="bob@example.org", name="", role="technician", facilities=("NORTH",))
    await note_opened(duty.ledger, bob, hold=str(hold["id"]))
    assert await pass_time(duty, now()) == []


async def test_hours_say_who_is_on_call(duty: Any) -> None:
    """Ann by day, Bob by night over midnight, each by the clock on their wall."""
    site = facility_with(
        ("ann", {"start": "07:00", "end": "19:00", "time_zone": "Europe/Berlin"}),
        ("bob", {"start": "19:00", "end": "07:00", "time_zone": "Europe/Berlin"}),
    )
    await load_site(duty.ledger, site)
    exam = await duty.exam(Priority.STAT)
    night = DAY.replace(hour=22)
    await notify_event(duty.engine, "exam_created", exam, at=night)
    await duty.ledger.execute("UPDATE outbox SET next_at = ?, created_at = ?", night, night)
    await pass_time(duty, night)
    told = (await exam_matters(duty.ledger, exam.id))[0]["payload"]["told"]
    assert told == ["bob@example.org"]
    await pass_time(duty, DAY + timedelta(hours=20))
    told = (await exam_matters(duty.ledger, exam.id))[0]["payload"]["told"]
    assert told == ["bob@example.org", "ann@example.org"]


def facility_with(*entries: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """The facility with these on call."""
    on_call = [{"person": f"{name}@example.org", "hours": [hours]} for name, hours in entries]
    return {"facility": [{"code": "NORTH", "on_call": on_call}]}


async def test_quiet_hours_with_and_without_consent(duty: Any) -> None:
    """The one on call is woken, unless the contact says that nothing may come."""
    contact = {"quiet": "00:00-23:59", "timezone": "UTC"}
    people = [user("ann", 1, **contact, breaks_quiet=False), user("bob", 2, **contact)]
    await load_site(duty.ledger, {"user": people})
    await created(duty)
    at = now().replace(hour=12, minute=0)
    await duty.ledger.execute("UPDATE outbox SET next_at = ?, created_at = ?", at, at)
    assert await pass_time(duty, at) == ["02"]


async def test_a_message_that_waits_is_not_sent_any_more(duty: Any) -> None:
    """Ann's provider is away; Bob acknowledges meanwhile, and Ann is left in peace."""
    exam = await created(duty)
    start = now()
    duty.sms.fault = TransientTransportError("away")
    await pass_time(duty, start)
    (matter,) = await exam_matters(duty.ledger, exam.id)
    await acknowledge(duty.ledger, matter, "bob@example.org")
    duty.sms.fault = None
    assert await pass_time(duty, start + 3 * MINUTE) == []
    states = {r["recipient"]: r["state"] for r in await exam_notifications(duty.ledger, exam.id)}
    assert states["ann@example.org"] == "cancelled"


async def test_an_overdue_exam_is_told_once(duty: Any) -> None:
    """When its target has passed, not before, and not after it was delivered or long ago."""
    late, done, old = [await duty.exam(Priority.STAT) for _ in range(3)]
    at = late.created_at + timedelta(minutes=61)
    await duty.ledger.execute("UPDATE exam SET status = 'delivered' WHERE id = ?", done.id)
    long_ago = at - timedelta(days=2)
    await duty.ledger.execute("UPDATE exam SET due_at = ? WHERE id = ?", long_ago, old.id)
    assert await tell_overdue(duty.engine, at=late.created_at + timedelta(minutes=59)) == 0
    assert await tell_overdue(duty.engine, at=at) == 1
    assert await tell_overdue(duty.engine, at=at + timedelta(hours=1)) == 0
    await duty.ledger.execute("UPDATE outbox SET state = 'done' WHERE event = 'exam_created'")
    while await deliver_events(duty.engine, "test"):
        pass
    await pass_time(duty, at)
    rows = await exam_notifications(duty.ledger, late.id)
    told = {row["recipient"] for row in rows if row["event"] == "exam_overdue"}
    assert told == {"tech@example.org", "boss@example.org", "ann@example.org"}
    assert "has passed its target" in duty.email.sent[-1].text


async def test_the_list_is_kept_and_checked(duty: Any) -> None:
    """It is exported as it was loaded; a wrong zone is refused, a stranger is a warning."""
    facility = next(f for f in (await export_site(duty.ledger))["facility"] if f["code"] == "NORTH")
    assert facility["on_call"] == SITE["facility"][0]["on_call"]
    assert facility["escalate_minutes"] == 5
    hours = {"start": "07:00", "end": "19:00", "time_zone": "Mars/Olympus"}
    with pytest.raises(ConfigError, match="Mars"):
        await load_site(duty.ledger, facility_with(("ann", hours)))
    stranger = {"code": "NORTH", "on_call": [{"person": "south@example.org"}]}
    loaded = await load_site(duty.ledger, {"facility": [stranger]})
    assert loaded["warnings"] == [
        "facility NORTH: south@example.org is on call but does not act there"
    ]
