"""Guesses at the same time: no more are looked at than one after the other."""

import asyncio
import threading
from typing import Any

import pytest

from rso.core.errors import BusyError
from rso.core.turns import Turns
from rso.ledger import Ledger, people
from rso.ledger.people import sign_in, too_many, upsert_user
from rso.ledger.tries import recent

ME = "tech@example.org"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were looked at; the right one is ``right``."""
    found: list[str] = []

    def look(password: str, hashed: str) -> bool:
        found.append(password)
        return bool(hashed) and password == "right"

    monkeypatch.setattr(people, "is_right", look)
    return found


@pytest.fixture
async def known(ledger: Ledger) -> Ledger:
    """One person."""
    await upsert_user(ledger, email=ME, role="coordinator", password="$argon2 no password fits")
    return ledger


async def test_guesses_at_once_are_as_few_as_one_by_one(
    known: Ledger, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of fifty at the same moment ten are looked at, also where several processes look."""
    monkeypatch.setattr(people, "_SIGN_INS", Turns(50, most=200))  # as many processes would
    said = await asyncio.gather(
        *(sign_in(known, ME, f"guess {n}", f"192.0.2.{n}") for n in range(50))
    )
    assert len(tried) == 10
    assert sum("Too many" in str(answer) for answer in said) == 40
    assert "Too many" in str(await sign_in(known, ME, "right", "192.0.2.99"))
    assert len(tried) == 10
    rows = await known.fetch("SELECT action, count(*) AS n FROM audit GROUP BY action")
    found = {row["action"]: row["n"] for row in rows}
    assert found == {"sign-in refused": 10, "sign-in locked": 1}


async def test_right_passwords_are_no_guesses(known: Ledger, tried: list[str]) -> None:
    """A crowd that signs in at once is let in, and nothing of it counts afterwards."""
    said = await asyncio.gather(*(sign_in(known, ME, "right", "192.0.2.1") for _ in range(30)))
    assert not [answer for answer in said if isinstance(answer, str)]
    assert len(tried) == 30
    assert await recent(known, f"account:{ME}") == await recent(known, "address:192.0.2.1") == 0


async def test_the_addresses_of_a_network_are_one_host(
    known: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up person from each of 130 addresses of a /64: others have room, fifty are looked at.

    A hundred wait at most, of whom fifty find the host locked when it is their turn.
    """
    go = threading.Event()
    tried = []

    def look(password: str, hashed: str) -> bool:
        tried.append(password)
        return go.wait(30) and bool(hashed) and password == "right"

    monkeypatch.setattr(people, "is_right", look)
    flood = [
        asyncio.create_task(sign_in(known, f"p{n}@example.org", "x", f"2001:db8:1:2::{n + 1:x}"))
        for n in range(130)
    ]
    try:
        async with asyncio.timeout(30):
            while sum(task.done() for task in flood) < 30 or len(tried) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert sum(task.done() for task in flood) == 30
        other = asyncio.create_task(sign_in(known, ME, "right", "2001:db8:1:3::1"))
        await asyncio.sleep(0.05)
        assert not other.done()
    finally:
        go.set()
    said = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(answer, BusyError) for answer in said) == 30
    assert sum("Too many" in answer for answer in said if isinstance(answer, str)) == 50
    assert tried.count("x") == 50
    assert "Too many" in str(await sign_in(known, ME, "right", "2001:db8:1:2:ffff::1"))
    assert not isinstance(await other, str)


async def test_what_costs_is_counted_exactly(ledger: Ledger) -> None:
    """Codes, links and messages too, fifty at the same moment."""
    said = await asyncio.gather(*(too_many(ledger, "code:x", 10) for _ in range(50)))
    assert sorted(said) == [False] * 10 + [True] * 40
    assert await recent(ledger, "code:x") == 10


async def test_a_queue_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds it full is told so at once; the rest has its turn, and then there is room."""
    go = asyncio.Event()
    turns = Turns(1, most=4, each=2)

    async def take(who: str) -> Any:
        try:
            async with turns.take(who):
                await go.wait()
        except BusyError as exc:
            return str(exc)
        return who

    asked = [asyncio.create_task(take(who)) for who in ("a", "a", "a", "b", "b", "c")]
    await asyncio.sleep(0.05)
    assert [task.done() for task in asked] == [False, False, True, False, False, True]
    asked[1].cancel()  # who gives up leaves no trace
    await asyncio.sleep(0)
    go.set()
    said = await asyncio.gather(*asked, return_exceptions=True)
    assert [said[0], said[3], said[4]] == ["a", "b", "b"]
    assert "try again in" in said[2]
    assert [await take("a"), await take("c")] == ["a", "c"]
    monkeypatch.setattr(people, "_SIGN_INS", Turns(1, most=0))
    with pytest.raises(BusyError):
        await sign_in(ledger, ME, "x", "192.0.2.1")
    assert await recent(ledger, f"account:{ME}") == 0
