"""STOP and START from a telephone: in every service's shape, by the secret only; real Kannel."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from rso_sms.inbound import read_message, word_of

from rso.app import create_app
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.ledger import Ledger
from rso.ledger.contacts import contacts_of
from rso.ledger.site import load_site
from rso.plugins import ConfigError, load_plugins
from rso.settings import load_settings
from rso.testing.kannel import KannelServer
from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for

SECRET = "a secret of the site"
SITE = {
    "facility": [{"code": "NORTH"}],
    "user": [{
        "email": "tech@example.org", "role": "technician", "facilities": ["NORTH"],
        "contacts": [{"channel": "sms", "address": "+1 (202) 555-0100"},
                     {"channel": "email", "address": "tech@example.org"}],
    }],
}  # fmt: skip


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """With one contact."""
    file = tmp_path / "rso.toml"
    file.write_text(
        '[plugins.sms]\nurl = "kannel://u:p@127.0.0.1:1/{address}"\n'
        f'inbound_secret = "{SECRET}"\n'
    )
    settings = load_settings(file)
    ledger = await Ledger.open(f"sqlite:{tmp_path / 'ledger.sqlite'}")
    await ledger.migrate()
    await load_site(ledger, SITE)
    archive = LocalArchive(tmp_path / "archive")
    yield Engine(ledger=ledger, plugins=load_plugins(settings), settings=settings, archive=archive)
    await ledger.close()


@pytest.fixture
async def web(engine: Engine) -> AsyncIterator[AsyncTestClient[Litestar]]:
    """The application."""
    async with AsyncTestClient(create_app(engine, None, [])) as made:
        yield made


async def left(engine: Engine) -> list[bool]:
    """Whether SMS and email are opted out."""
    return [bool(c["opted_out"]) for c in await contacts_of(engine.ledger, "tech@example.org")]


@pytest.mark.parametrize("ask", [
    {"method": "GET", "params": {"from": "12025550100", "text": "Stop please"},
     "auth": ("kannel", SECRET)},
    {"method": "POST", "data": {"From": "+12025550100", "Body": "STOP", "To": "+1999"},
     "auth": ("twilio", SECRET)},
    {"method": "POST", "json": {"msisdn": 12025550100, "text": "stopp"},
     "headers": {"Authorization": f"Bearer {SECRET}"}},
    {"method": "POST", "json": {"originator": "0012025550100", "body": "«STOP»"},
     "params": {"secret": SECRET}},
])  # fmt: skip
async def test_stop_and_start(
    web: AsyncTestClient[Litestar], engine: Engine, ask: dict[str, Any]
) -> None:
    """In each shape: the number is left alone, its owner's email is not, and START ends that."""
    ask = {"headers": {}, **ask}
    answer = await web.request(url="/sms/inbound", **ask)
    assert answer.status_code == 200
    assert "no more messages" in answer.text
    assert await left(engine) == [True, False]
    for part in ("params", "data", "json"):
        names = {"text", "Body", "body"} & set(ask.get(part, {}))
        ask[part] = ask.get(part, {}) | dict.fromkeys(names, "start") if part in ask else None
    answer = await web.request(
        url="/sms/inbound", **{k: v for k, v in ask.items() if v is not None}
    )
    assert "again" in answer.text
    assert await left(engine) == [False, False]
    rows = await engine.ledger.fetch("SELECT actor, action, facts FROM audit ORDER BY id")
    assert [(r["actor"], r["action"]) for r in rows] == [
        ("sms", "messages stopped"), ("sms", "messages started")
    ]  # fmt: skip
    assert "2025550100" not in str(rows)


async def test_strangers_change_nothing(web: AsyncTestClient[Litestar], engine: Engine) -> None:
    """No secret, a wrong one, and too many of them; nonsense with the right one."""
    asked = {"from": "12025550100", "text": "STOP"}
    for auth in (None, ("x", "wrong"), ("x", "")):
        assert (await web.get("/sms/inbound", params=asked, auth=auth)).status_code == 403
    for _ in range(20):
        last = await web.post("/sms/inbound", data=asked, auth=("x", "wrong"))
    assert last.status_code == 429
    right = {"auth": ("x", SECRET)}
    # Whoever has guessed so often is not heard, also with the right one.
    assert (await web.get("/sms/inbound", params=asked, **right)).status_code == 429
    assert await left(engine) == [False, False]
    await engine.ledger.execute("DELETE FROM login_attempt")
    for body in (b"", b"[1]", b"{", b'{"from": {}, "text": ["STOP"]}'):
        json = {"Content-Type": "application/json"}
        answer = await web.post("/sms/inbound", content=body, headers=json, **right)
        assert (answer.status_code, answer.text) == (200, "")
    bad = await web.get("/sms/inbound", params={"from": "RSO", "text": "STOP"}, **right)
    assert bad.status_code == 400
    words = {"from": "12025550100", "text": "The patient Jane Doe is here"}
    assert (await web.get("/sms/inbound", params=words, **right)).text == ""
    assert await left(engine) == [False, False]
    assert not await engine.ledger.fetch("SELECT * FROM audit")


async def test_one_number_is_heard_ten_times_a_minute(web: AsyncTestClient[Litestar]) -> None:
    """An endless echo between two machines ends."""
    asked = {"from": "12025550100", "text": "STOP"}
    codes = [
        (await web.get("/sms/inbound", params=asked, auth=("x", SECRET))).status_code
        for _ in range(12)
    ]
    assert codes == [200] * 10 + [429] * 2


def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    """At the start, with its place and without itself."""
    file = tmp_path / "rso.toml"
    file.write_text(
        '[plugins.sms]\nurl = "json://h/{address}"\ninbound_secret = "fifteen letters"\n'
    )
    with pytest.raises(ConfigError, match=r"inbound_secret .*\$\.plugins\.sms") as caught:
        load_plugins(load_settings(file))
    assert "fifteen letters" not in str(caught.value)


def test_words() -> None:
    """The first word, however it is written; nothing else."""
    stops = ("stop", " STOP.", "Unsubscribe me")
    assert [word_of(text) for text in (*stops, "start", "no STOP", "")] == [
        "stop", "stop", "stop", "start", "", "",
    ]  # fmt: skip
    assert read_message({"From": "+1", "Body": "x"}) == ("+1", "x")


def test_a_telephone_says_stop(tmp_path: Path, pacs: Pacs) -> None:
    """Through a real Kannel to a running RSO; the answer goes back to the telephone."""
    kannel = KannelServer()
    site = Site(
        tmp_path, pacs.port,
        f'plugins.sms.url="kannel://rso:secret@127.0.0.1:{kannel.port}/{{address}}"',
        'plugins.sms.inbound_secret="open-sesame-open"',
    )  # fmt: skip
    site.start()
    try:
        kannel.start(
            f"http://kannel:open-sesame-open@127.0.0.1:{site.web}/sms/inbound?from=%p&text=%a"
        )
        assert _left(site) == [0]
        kannel.send_from("12025550100", "STOP")
        wait_for(lambda: "no more messages" in kannel.arrived(), 30)
        assert _left(site) == [1]
        kannel.send_from("12025550100", "START")
        wait_for(lambda: "messages to this number again" in kannel.arrived(), 30)
        assert _left(site) == [0]
        assert "open-sesame" not in (site.folder / "rso.log").read_text()
    finally:
        kannel.stop()
        assert site.stop() == 0


def _left(site: Site) -> list[int]:
    """Whether the technician's SMS contact is opted out."""
    with contextlib.closing(sqlite3.connect(site.folder / "site" / "rso.sqlite")) as database:
        rows = database.execute("SELECT opted_out FROM contact WHERE channel = 'sms'")
        return [row[0] for row in rows]
