"""Who guesses names and passwords of sources costs little, and soon nothing."""

import asyncio
import base64
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litestar import Litestar, Request
from litestar.exceptions import NotAuthorizedException
from litestar.testing import RequestFactory
from rso_http_upload import callers as module
from rso_http_upload.callers import Callers

from rso.core.errors import BusyError
from rso.core.source import identify_source
from rso.ledger import people
from rso.plugins import Kind, ReceiverContext, Source
from rso.settings import Web as WebSection
from rso.testing.spool import RecordingSpool

SOURCES = [
    Source(facility="NORTH", channel="http_upload", identity="GATEWAY", kind=Kind.INTEGRATION,
           password_hash="hash"),
    Source(facility="NORTH", channel="http_upload", identity="NEAR", kind=Kind.INTEGRATION,
           password_hash="hash", networks=("10.1.2.0/24",)),
]  # fmt: skip
Ask = Request[Any, Any, Any]
APP = Litestar([])
APP.state.engine = SimpleNamespace(settings=SimpleNamespace(web=WebSection(), base_url=""))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were looked at."""
    found: list[str] = []

    def look(password: str, hashed: str) -> bool:
        found.append(password)
        return bool(hashed) and password == "right"

    monkeypatch.setattr(module, "is_right", look)
    return found


@pytest.fixture
def made(tmp_path: Path) -> Callers:
    """With two sources, one of which is bound to a network."""
    return Callers(
        ReceiverContext(
            spool=RecordingSpool(), identify=lambda c: identify_source(c, SOURCES),
            sources=lambda: SOURCES, data_dir=tmp_path,
        )
    )  # fmt: skip


def asked(name: str, password: str, peer: str = "192.0.2.1") -> Ask:
    """A request with both."""
    secret = base64.b64encode(f"{name}:{password}".encode()).decode()
    request: Ask = RequestFactory(app=APP, scheme="https").get(
        "/", headers={"Authorization": f"Basic {secret}"}
    )
    request.scope["client"] = (peer, 1)
    return request


async def refused(callers: Callers, name: str, password: str = "wrong", **more: str) -> None:
    """As everybody is who is not known."""
    with pytest.raises(NotAuthorizedException, match="not known"):
        await callers.source(asked(name, password, **more))


async def test_a_banned_caller_costs_nothing(made: Callers, looked: list[str]) -> None:
    """After ten wrong passwords a name's next ones are not looked at, the right one neither."""
    for _ in range(30):
        await refused(made, "GATEWAY")
    assert len(looked) == 10
    await refused(made, "GATEWAY", "right")
    assert len(looked) == 10
    found = await made.source(asked("GATEWAY", "right", peer="192.0.2.2"))
    assert found is not None


async def test_names_that_change_ban_the_address(made: Callers, looked: list[str]) -> None:
    """After fifty; never an address that a source's network holds."""
    for n in range(80):
        await refused(made, f"random-{n}", f"wrong {n}")
    assert len(looked) == 50
    await refused(made, "GATEWAY", "right")
    looked.clear()
    near = {"peer": "10.1.2.3"}
    for n in range(80):
        await refused(made, f"random-{n}", f"wrong {n}", **near)
    assert len(looked) == 80
    assert await made.source(asked("NEAR", "right", **near)) is not None


async def test_a_flood_is_told_to_come_later(
    made: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen of a host wait, the others do not; signing in to the web waits for none."""
    go = threading.Event()

    def look(password: str, hashed: str) -> bool:
        return go.wait(30) and bool(hashed) and password == "right"

    monkeypatch.setattr(module, "is_right", look)
    flood = [
        asyncio.create_task(made.source(asked(f"random-{n}", f"wrong {n}", f"2001:db8::{n:x}")))
        for n in range(100)
    ]
    other = [asyncio.create_task(made.source(asked("GATEWAY", "right", "192.0.2.2")))
             for _ in range(30)]  # fmt: skip
    try:
        async with asyncio.timeout(20):
            while sum(task.done() for task in flood) < 84:
                await asyncio.sleep(0.01)
            async with people._SIGN_INS.take("2001:db8::/64"):
                assert sum(task.done() for task in flood) == 84
        assert not any(task.done() for task in other)
    finally:
        go.set()
    said = await asyncio.gather(*flood, return_exceptions=True)
    assert [type(answer) for answer in said].count(BusyError) == 84
    # A gateway that begins with thirty requests is looked at once, and let in thirty times.
    found = await asyncio.gather(*other)
    assert {source.identity for source in found if source} == {"GATEWAY"}
    assert len(found) == 30
