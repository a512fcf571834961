"""Live streams: who is told of what, how they end, and how many one person may have."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from rso.core.exam import Patient
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.ledger import Ledger
from rso.ledger.exams import now
from rso.ledger.people import Person, set_disabled
from rso.ledger.sessions import create_session, end_session, find_session, session_key
from rso.web import live as live_module
from rso.web.live import Live, Stream, TooManyStreams

NORTH = Person(email="tech@north.example", name="", role="technician", facilities=("NORTH",))
LEAD = Person(email="lead@example.org", name="", role="coordinator", facilities=None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are looked at, and silence is broken, more often."""
    monkeypatch.setattr(live_module, "SESSION_SECONDS", 0.2)
    monkeypatch.setattr(live_module, "BEAT_SECONDS", 0.3)
    monkeypatch.setattr(live_module, "PAUSE_SECONDS", 0.01)


@pytest.fixture
async def live(ledger: Ledger) -> AsyncIterator[Live]:
    """The streams of a process."""
    made = Live(ledger)
    yield made
    made.close()
    await asyncio.sleep(0)


async def tab(ledger: Ledger, live: Live, person: Person) -> tuple[str, Stream, list[str]]:
    """An open tab: its session, and the events it is sent, as they come."""
    secret = await create_session(ledger, person)
    stream = live.open(session_key(secret), person)
    heard: list[str] = []

    async def listen() -> None:
        async for message in live.messages(stream):
            assert not message.data
            heard.append(str(message.event))

    task = asyncio.create_task(listen())
    stream.task = task  # type: ignore[attr-defined]  # kept from being collected
    return secret, stream, heard


async def until(heard: list[str], event: str) -> None:
    """Wait for an event."""
    async with asyncio.timeout(5):
        while event not in heard:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("quick")
async def test_only_ones_own_facilities(clinics: Engine, live: Live) -> None:
    """A change at SOUTH is told to who sees SOUTH, with no word of what changed; silence is broken."""
    ledger = clinics.ledger
    _, _, north = await tab(ledger, live, NORTH)
    _, _, lead = await tab(ledger, live, LEAD)
    await until(north, "beat")  # the watch has begun: the first word was for everybody
    north.clear()
    lead.clear()
    await create_exam(clinics, facility="SOUTH", patient=Patient(name="DOE^JANE"), actor="t")
    await until(lead, "change")
    await asyncio.sleep(0.5)
    assert "change" not in north
    await create_exam(clinics, facility="NORTH", patient=Patient(name="DOE^JANE"), actor="t")
    await until(north, "change")


@pytest.mark.usefixtures("quick")
async def test_a_stream_ends_with_its_session(clinics: Engine, live: Live) -> None:
    """By signing out and by being disabled; the stream itself keeps no session awake."""
    ledger = clinics.ledger
    secret, _, heard = await tab(ledger, live, NORTH)
    _, _, other = await tab(ledger, live, LEAD)
    await until(heard, "ready")
    before = await ledger.fetch("SELECT seen_at FROM web_session ORDER BY id")
    await asyncio.sleep(0.5)
    assert await ledger.fetch("SELECT seen_at FROM web_session ORDER BY id") == before
    assert "signed-out" not in heard
    await end_session(ledger, secret)
    await until(heard, "signed-out")
    await set_disabled(ledger, LEAD.email, disabled=True)
    await until(other, "signed-out")


async def test_what_a_page_asks_by_itself_keeps_nobody_signed_in(clinics: Engine) -> None:
    """Only a request with a person behind it moves the session's idle limit."""
    ledger = clinics.ledger
    secret = await create_session(ledger, NORTH)
    before = now() - timedelta(minutes=10)
    await ledger.execute("UPDATE web_session SET seen_at = ?", before)
    assert await find_session(ledger, secret, touch=False)
    assert (await ledger.fetch("SELECT seen_at FROM web_session"))[0]["seen_at"] == before
    assert await find_session(ledger, secret)
    assert (await ledger.fetch("SELECT seen_at FROM web_session"))[0]["seen_at"] > before


async def test_a_person_has_so_many_and_no_more(clinics: Engine, live: Live) -> None:
    """Another person is not hindered, and a closed tab makes room."""
    secret, stream, _ = await tab(clinics.ledger, live, NORTH)
    served = [
        live.messages(live.open(session_key(secret), NORTH))
        for _ in range(live_module.MOST_A_PERSON - 1)
    ]
    with pytest.raises(TooManyStreams):
        live.open(session_key(secret), NORTH)
    live.open("x", LEAD)
    await asyncio.sleep(0)
    task = stream.task  # type: ignore[attr-defined]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    served.append(live.messages(live.open(session_key(secret), NORTH)))
    with pytest.raises(TooManyStreams):
        live.open(session_key(secret), NORTH)
    # One whose client left before its first byte was never begun, and makes room too.
    served.pop()
    live.open(session_key(secret), NORTH)


async def test_the_end_of_the_process_ends_the_streams(clinics: Engine, live: Live) -> None:
    """A stopping server need not wait for open tabs."""
    _, stream, heard = await tab(clinics.ledger, live, NORTH)
    await until(heard, "ready")
    live.close()
    async with asyncio.timeout(2):
        await stream.task  # type: ignore[attr-defined]
    assert heard[-1] == "restart"
    with pytest.raises(TooManyStreams):
        live.open("x", NORTH)
