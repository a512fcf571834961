"""The application in this process, over SQLite, for tests of the web."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.ledger import Ledger
from rso.ledger.people import Person
from rso.ledger.sessions import create_session, find_session
from rso.ledger.site import load_site
from rso.plugins import load_plugins
from rso.settings import load_settings

# A hash that costs nothing to check: "a good password".
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("a good password")
WEB_SITE: dict[str, Any] = {
    "facility": [{"code": "NORTH", "radiologists": [{"code": "R"}], "sources": [
        {"channel": "http_upload", "identity": "north-gateway", "kind": "integration",
         "password": CHEAP}]}],
    "radiologist": [
        {"code": "R", "destinations": [{"code": "R-PACS", "sender": "dicom_scu", "options": {
            "ae_title": "PACS", "host": "127.0.0.1", "port": 1}}]}],
    "user": [
        {"email": "tech@example.org", "role": "technician", "facilities": ["NORTH"],
         "password": CHEAP},
        {"email": "boss@example.org", "role": "admin", "password": CHEAP},
        {"email": "coord@example.org", "role": "coordinator", "password": CHEAP},
    ],
}  # fmt: skip
CLINICS: dict[str, Any] = {
    "facility": [{"code": "NORTH"}, {"code": "SOUTH"}],
    "user": [
        {"email": "tech@north.example", "role": "technician", "facilities": ["NORTH"]},
        {"email": "other@north.example", "role": "technician", "facilities": ["NORTH"]},
        {"email": "tech@south.example", "role": "technician", "facilities": ["SOUTH"]},
        {"email": "lead@example.org", "role": "coordinator"},
    ],
}
MakeApp = Callable[..., Awaitable[AsyncTestClient[Litestar]]]


@pytest.fixture
async def make_web(tmp_path: Path) -> AsyncIterator[MakeApp]:
    """Make a client of an application with this rso.toml; its engine is ``app.state.engine``."""
    from rso_http_upload.receiver import HttpUpload, HttpUploadConfig  # noqa: PLC0415

    from rso.plugins import ReceiverContext  # noqa: PLC0415
    from rso.testing.spool import RecordingSpool  # noqa: PLC0415

    opened: list[Any] = []

    async def make(toml: str = "[plugins.http_upload]\n") -> AsyncTestClient[Litestar]:
        file = tmp_path / "rso.toml"
        file.write_text(toml)
        settings = load_settings(file)
        # SQLite: the test client runs the application in a loop of its own, and asyncpg minds.
        ledger = await Ledger.open(f"sqlite:{tmp_path / 'ledger.sqlite'}")
        opened.append(ledger.close)
        await ledger.migrate()
        await load_site(ledger, WEB_SITE)
        archive = LocalArchive(tmp_path / "archive")
        archive.prepare()
        engine = Engine(
            ledger=ledger, plugins=load_plugins(settings), settings=settings, archive=archive
        )
        spool = RecordingSpool()
        context = ReceiverContext(
            spool=spool, identify=lambda _: None, sources=list, data_dir=tmp_path
        )
        app = create_app(engine, spool, [HttpUpload(HttpUploadConfig(), context)])
        client = AsyncTestClient(app, raise_server_exceptions=False)
        await client.__aenter__()
        opened.append(lambda: client.__aexit__(None, None, None))
        return client

    yield make
    for close in reversed(opened):
        await close()


@pytest.fixture
async def web(make_web: MakeApp) -> AsyncTestClient[Litestar]:
    """The application as it is by default."""
    return await make_web()


@pytest.fixture
def enter() -> Callable[..., Awaitable[dict[str, str]]]:
    """Begin a session for a role without the form; returns the headers that carry it."""

    async def begin(
        client: AsyncTestClient[Litestar], role: str = "admin", email: str = ""
    ) -> dict[str, str]:
        names = {"admin": "boss", "technician": "tech", "coordinator": "coord"}
        email = email or f"{names[role]}@example.org"
        ledger = client.app.state.engine.ledger
        person = Person(email=email, name="", role=role, facilities=None)
        secret = await create_session(ledger, person)
        found = await find_session(ledger, secret)
        assert found is not None
        return {
            "Cookie": f"rso_session={secret}",
            "X-CSRF-Token": found.csrf,
            "Accept": "text/html",
        }

    return begin


@pytest.fixture
async def clinics(ledger: Ledger, tmp_path: Path) -> Engine:
    """Two facilities with their technicians, and a coordinator of both."""
    file = tmp_path / "rso.toml"
    file.write_text("")
    settings = load_settings(file)
    await load_site(ledger, CLINICS)
    return Engine(
        ledger=ledger,
        plugins=load_plugins(settings),
        settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )
