"""Hours that pass on a fake clock: an outage, its catching up, quiet hours when clocks change."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rso.core.errors import TransientTransportError
from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority
from rso.core.notifying import EVENTS
from rso.engine.notices import notice_of, write_message
from rso.engine.notify import exam_notifications, notify_people
from rso.engine.notify_loop import send_due
from rso.engine.pace import Pace
from rso.ledger.exams import now
from rso.ledger.site import load_site

MINUTE = timedelta(minutes=1)


async def test_an_hour_without_a_provider(world: Any) -> None:
    """Who has another channel is told there; the others are told afterwards, and not in a flood."""
    solo = {"email": "solo@example.org", "role": "technician", "facilities": ["NORTH"],
            "contacts": [{"channel": "sms", "address": "+12025550155"}]}  # fmt: skip
    await load_site(world.ledger, {"user": [solo]})
    start = now() + MINUTE
    for _ in range(25):
        exam = await world.exam()
        people = {"solo@example.org": ["sms"], "tech@example.org": ["sms"]}
        await notify_people(world.engine, exam, people, actor="c")
    stat = await world.exam(Priority.STAT)
    world.sms.fault = TransientTransportError("the provider cannot be reached")
    pace, at_once, sent_at = Pace(120), 12, list[datetime]()
    notifiers = {n.name: n for n in (world.sms, world.email, world.fax)}
    for half_minute in range(2 * 150):
        at = start + half_minute * MINUTE / 2
        if half_minute == 120:
            assert not world.sms.sent
            assert {m.address for m in world.email.sent} == {"tech@example.org"}
            assert len(world.email.sent) == 25
            world.sms.fault = None
            await notify_people(world.engine, stat, {"solo@example.org": ["sms"]}, actor="c")
            await world.ledger.execute("UPDATE outbox SET next_at = ? WHERE exam = ?", at, stat.id)
        before = len(world.sms.sent)
        for _ in range(200):
            if not await send_due(world.engine, "test", notifiers, at=at, pace=pace):
                break
        if half_minute == 120:
            assert stat.number in {m.exam_number.replace("-", "") for m in world.sms.sent}
        sent_at += [at] * (len(world.sms.sent) - before)
    assert len(world.sms.sent) == 26  # each once, and what email told is not told again
    assert len({m.exam_number for m in world.sms.sent}) == 26
    assert len(set(sent_at)) > 2
    for at in set(sent_at):
        assert sent_at.count(at) <= at_once + 1  # the STAT exam did not wait


@pytest.mark.parametrize(("written", "asleep", "awake"), [
    # The night that loses an hour, and the one that gains it: seven by the wall, twice.
    ("2026-03-28T22:30", "2026-03-29T04:59", "2026-03-29T05:01"),
    ("2026-10-24T21:30", "2026-10-25T05:59", "2026-10-25T06:01"),
])  # fmt: skip
async def test_quiet_hours_end_by_the_clock_on_the_wall(
    world: Any, written: str, asleep: str, awake: str
) -> None:
    """A message of the evening goes at seven in Berlin, whatever the clocks did at night."""
    contact = {"channel": "email", "address": "boss@example.org", "quiet": "22:00-07:00",
               "timezone": "Europe/Berlin"}  # fmt: skip
    boss = {"email": "boss@example.org", "role": "coordinator", "contacts": [contact]}
    await load_site(world.ledger, {"user": [boss]})
    exam = await world.exam()
    await notify_people(world.engine, exam, {"boss@example.org": ["email"]}, actor="c")
    at, before, after = (
        datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (written, asleep, awake)
    )
    sql = "UPDATE outbox SET next_at = ?, created_at = ? WHERE kind = 'notify'"
    await world.ledger.execute(sql, at, at)
    await world.run(at)
    await world.run(before)
    assert not world.email.sent
    await world.run(after)
    assert len(world.email.sent) == 1


async def test_an_answer_that_is_lost_is_a_second_message(world: Any) -> None:
    """The one way to a duplicate: the provider took it, and nobody learned of it."""
    exam = await world.exam()
    world.sms.lost = True
    await notify_people(world.engine, exam, {"tech@example.org": ["sms"]}, actor="c")
    await world.run()
    world.sms.lost = False
    await world.run(now() + 2 * MINUTE)
    assert len(world.sms.sent) == 2
    assert len({message.key for message in world.sms.sent}) == 1
    (row,) = await exam_notifications(world.ledger, exam.id)
    assert row["state"] == "accepted"


HOSTILE = st.one_of(
    st.text(min_size=1, max_size=60),
    st.sampled_from([
        "X\r\nBcc: evil@example.org", "{{ 7 * 7 }}", "{% include '/etc/passwd' %}", "<script>x()",
        '"\r\nJKILL 1', "\x1b]0;x\x07", "\u202egnp.exe", "$(reboot)", "'; DROP TABLE exam; --",
    ]),
)  # fmt: skip


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None
)
@given(
    event=st.sampled_from(sorted(EVENTS)), channel=st.sampled_from(["sms", "email", "fax"]),
    name=HOSTILE, facility=HOSTILE,
)  # fmt: skip
def test_nothing_typed_becomes_a_header_or_a_template(
    settings_of: Any, tmp_path: Any, event: str, channel: str, name: str, facility: str
) -> None:
    """Names are not in messages; what is (a facility's code) is neither run nor a line of its own."""
    exam = Exam(
        id="1", number="7Q2KM4TX9C", facility=facility, origin=Origin.REQUEST,
        status=ExamStatus.REQUESTED, created_at=now(), body_part=name,
        patient=Patient(name=f"NAME{name}", patient_id=name),
    )  # fmt: skip
    own = tmp_path / "own"
    own.mkdir(exist_ok=True)
    (own / f"{event}.txt").write_text("Of {{ facility }}\n\nAt {{ facility }}: {{ link }}")
    found = settings_of(tmp_path)
    from msgspec import structs  # noqa: PLC0415

    found = structs.replace(found, notify=structs.replace(found.notify, templates=str(own)))
    notice = notice_of(found, event, exam)
    message = write_message(found, notice, channel=channel, address="a@b", key="1")
    assert f"NAME{name}" not in message.text + message.subject + message.html
    assert "\n" not in message.subject
    assert "\r" not in message.subject
    assert "<script" not in message.html
    if "{{" in facility:
        assert "49" not in message.text
    if channel == "sms":
        assert "\n" not in message.text
