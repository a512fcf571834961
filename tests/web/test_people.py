"""Signing in, staying in, being thrown out, and coming back with a new password."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pyotp
import pytest
from aiosmtpd.controller import Controller
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.ledger import audit
from rso.ledger.exams import now
from rso.ledger.second_factor import begin_totp, confirm_totp, has_totp
from rso.ledger.site_export import export_site
from rso.ledger.tokens import create_token, find_token
from rso.testing.site import free_port

Client = AsyncTestClient[Litestar]


class Inbox:
    """A mail server that keeps what it takes."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep it."""
        self.mails.append(envelope.content.decode())
        return "250 OK"

    async def link(self) -> str:
        """The path of the link in the newest mail."""
        for _ in range(100):
            if self.mails:
                text = self.mails[-1].replace("=\r\n", "").replace("=3D", "=")
                found = re.search(r"https?://[^/\s]+(/reset/[\w-]+)", text)
                assert found is not None
                return found[1]
            await asyncio.sleep(0.05)
        raise AssertionError("no mail came")


@pytest.fixture
async def inbox() -> AsyncIterator[tuple[Inbox, int]]:
    """The mail server and its port."""
    kept, port = Inbox(), free_port()
    controller = Controller(kept, hostname="127.0.0.1", port=port)
    controller.start()
    yield kept, port
    controller.stop()


async def sign_in(
    client: Client, password: str, email: str = "tech@example.org", **headers: str
) -> Any:
    """Post the form."""
    return await client.post(
        "/sign-in", data={"email": email, "password": password},
        headers={"Accept": "text/html", **headers}, follow_redirects=False,
    )  # fmt: skip


async def actions(client: Client) -> list[str]:
    """What the audit holds."""
    rows = await client.app.state.engine.ledger.fetch("SELECT action FROM audit ORDER BY id")
    return [row["action"] for row in rows]


async def test_a_new_password_by_email(make_web: Any, inbox: tuple[Inbox, int], enter: Any) -> None:
    """The link is good once, ends sessions and tokens, keeps the second factor, is only hashed."""
    kept, port = inbox
    url = f"mailto://127.0.0.1:{port}?from=rso@example.org"
    client = await make_web(f'[plugins.http_upload]\n[plugins.email]\nurl = "{url}"\n')
    ledger = client.app.state.engine.ledger
    secret = await begin_totp(ledger, "tech@example.org")
    assert await confirm_totp(ledger, "tech@example.org", pyotp.TOTP(secret).now())
    session = await enter(client, "technician")
    token = await create_token(ledger, email="tech@example.org")
    other = await create_token(ledger, email="coord@example.org")
    assert "/forgot" in (await client.get("/sign-in", headers={"Accept": "text/html"})).text
    known = await client.post("/forgot", data={"email": "Tech@example.org"})
    stranger = await client.post("/forgot", data={"email": "nobody@example.org"})
    assert (known.status_code, known.text) == (stranger.status_code, stranger.text)
    link = await kept.link()
    assert len(kept.mails) == 1
    rows = await ledger.fetch("SELECT token_hash FROM password_reset")
    assert link.removeprefix("/reset/") not in str(rows)
    for _ in range(2):  # a scanner that opens links uses nothing up
        assert (await client.get(link)).status_code == 200
    assert (await client.post(link, data={"password": "short"})).status_code == 422
    done = await client.post(link, data={"password": "another password"})
    assert done.status_code == 200
    assert (await client.post(link, data={"password": "a third password"})).status_code == 404
    assert (await client.get("/", headers=session, follow_redirects=False)).status_code == 302
    assert await find_token(ledger, token) is None
    assert await find_token(ledger, other) is not None
    assert (await sign_in(client, "a good password")).status_code == 401
    assert "authenticator" in (await sign_in(client, "another password")).text
    assert await has_totp(ledger, "tech@example.org")
    assert {"password reset asked", "password reset", "tokens ended"} <= set(await actions(client))


async def test_a_link_ends_by_itself_and_by_a_newer_ones_use(
    make_web: Any, inbox: tuple[Inbox, int]
) -> None:
    """After an hour, after another link was used, and for whoever may not sign in."""
    kept, port = inbox
    url = f"mailto://127.0.0.1:{port}?from=rso@example.org"
    client = await make_web(f'[plugins.http_upload]\n[plugins.email]\nurl = "{url}"\n')
    ledger = client.app.state.engine.ledger
    await client.post("/forgot", data={"email": "tech@example.org"})
    first = await kept.link()
    kept.mails.clear()
    await client.post("/forgot", data={"email": "tech@example.org"})
    second = await kept.link()
    assert (await client.post(second, data={"password": "another password"})).status_code == 200
    assert (await client.get(first)).status_code == 404
    kept.mails.clear()
    # More than two a minute are not sent, and say nothing of it.
    third = await client.post("/forgot", data={"email": "tech@example.org"})
    assert third.status_code == 200
    await ledger.execute("DELETE FROM login_attempt")
    await client.post("/forgot", data={"email": "tech@example.org"})
    link = await kept.link()
    assert len(kept.mails) == 1
    await ledger.execute("UPDATE password_reset SET expires_at = ?", now() - timedelta(seconds=1))
    assert (await client.post(link, data={"password": "a third password"})).status_code == 404
    await ledger.execute("UPDATE user_account SET disabled = ?", True)
    kept.mails.clear()
    await client.post("/forgot", data={"email": "coord@example.org"})
    await asyncio.sleep(0.3)
    assert not kept.mails


async def test_without_email_there_is_no_link(web: Client) -> None:
    """Nothing is offered that cannot be sent."""
    assert "/forgot" not in (await web.get("/sign-in", headers={"Accept": "text/html"})).text
    assert (await web.get("/forgot")).status_code == 404


async def test_a_session_ends_without_use(make_web: Any, enter: Any) -> None:
    """Idle as configured; a poll or a stream is no use, a press of the button is; and at last."""
    client = await make_web("[web]\nidle_minutes = 10\nsession_hours = 1\n[plugins.http_upload]\n")
    ledger = client.app.state.engine.ledger
    me = await enter(client, "technician")

    async def rest(minutes: float) -> None:
        await ledger.execute(
            "UPDATE web_session SET seen_at = ?", now() - timedelta(minutes=minutes)
        )

    async def inside(**more: str) -> bool:
        answer = await client.get("/", headers={**me, **more}, follow_redirects=False)
        return bool(answer.status_code == 200)

    await rest(9)
    assert await inside(**{"X-Unattended": "1"})
    assert await inside(Accept="text/event-stream, text/html")
    seen = (await ledger.fetch("SELECT seen_at FROM web_session"))[0]["seen_at"]
    assert now() - seen > timedelta(minutes=8)
    asked = await client.get("/me/session", headers=me | {"X-Unattended": "1"})
    assert asked.json() == {
        "account": "tech@example.org", "csrf": me["X-CSRF-Token"], "idle_seconds": 60,
        "left_seconds": pytest.approx(12 * 3600, abs=10),
    }  # fmt: skip
    assert (await ledger.fetch("SELECT seen_at FROM web_session"))[0]["seen_at"] == seen
    answer = await client.post("/me/session", headers=me)
    assert answer.json()["idle_seconds"] == 600
    assert 3000 < answer.json()["left_seconds"] <= 12 * 3600
    seen = (await ledger.fetch("SELECT seen_at FROM web_session"))[0]["seen_at"]
    assert now() - seen < timedelta(minutes=1)
    await rest(11)
    assert not await inside()
    assert (await client.post("/me/session", headers=me)).status_code == 401
    asked = await client.get("/me/session", headers=me | {"Accept": "application/json"})
    assert asked.status_code == 401
    await rest(0)
    assert await inside()
    await ledger.execute("UPDATE web_session SET expires_at = ?", now() - timedelta(seconds=1))
    assert not await inside()
    made = await sign_in(client, "a good password")
    assert made.status_code == 303
    left = (await ledger.fetch("SELECT max(expires_at) AS at FROM web_session"))[0]["at"]
    assert "3600" not in str(left)


async def test_one_sees_and_ends_ones_own_sessions(web: Client, enter: Any) -> None:
    """Each alone, by a key that is no secret; never another person's."""
    mine, elsewhere = await enter(web, "technician"), await enter(web, "technician")
    other = await enter(web, "coordinator")
    shown = (await web.get("/me/security", headers=mine)).text
    keys = re.findall(r'name="session" value="(\w+)"', shown)
    assert len(keys) == 1
    assert "this one" in shown
    theirs = re.findall(
        r'name="session" value="(\w+)"', (await web.get("/me/security", headers=other)).text
    )
    assert not theirs
    ledger = web.app.state.engine.ledger
    stranger = (await ledger.fetch("SELECT id FROM web_session WHERE account LIKE 'coord%'"))[0][
        "id"
    ]
    for key, status in ((stranger[:16], 422), ("%" * 16, 422), (keys[0], 303), (keys[0], 422)):
        answer = await web.post(
            "/me/security/session", headers=mine, data={"session": key}, follow_redirects=False
        )
        assert answer.status_code == status
    assert (await web.get("/", headers=elsewhere, follow_redirects=False)).status_code == 302
    for left in (mine, other):
        assert (await web.get("/", headers=left, follow_redirects=False)).status_code == 200


async def test_what_an_administrator_does_for_people(web: Client, enter: Any) -> None:
    """A lost second factor goes, sessions end, both audited; nobody locks themselves out."""
    boss, tech = await enter(web, "admin"), await enter(web, "technician")
    ledger = web.app.state.engine.ledger
    secret = await begin_totp(ledger, "tech@example.org")
    await confirm_totp(ledger, "tech@example.org", pyotp.TOTP(secret).now())
    assert (
        "Second factor: on"
        in (await web.get("/admin/users/edit/tech@example.org", headers=boss)).text
    )
    where = "/admin/people/tech@example.org/second-factor"
    assert (await web.post(where, headers=tech)).status_code == 403
    assert (await web.post(where, headers=boss, follow_redirects=False)).status_code == 303
    assert not await has_totp(ledger, "tech@example.org")
    assert (await web.get("/", headers=tech, follow_redirects=False)).status_code == 302
    entries = await ledger.fetch("SELECT * FROM audit WHERE action = 'second factor reset'")
    assert entries[0]["actor"] == "boss@example.org"
    assert "tech@example.org" in entries[0]["facts"]
    own = {"email": "boss@example.org", "role": "technician", "at:NORTH": "on", "new": "no"}
    assert (await web.post("/admin/users/save", headers=boss, data=own)).status_code == 422
    own |= {"role": "admin", "disabled": "on"}
    assert (await web.post("/admin/users/save", headers=boss, data=own)).status_code == 422
    tech = await enter(web, "technician")
    token = await create_token(ledger, email="tech@example.org")
    other = {"email": "tech@example.org", "role": "technician", "at:NORTH": "on", "new": "no"}
    for change, status, left in (
        ({}, 303, 200), ({"password": "short"}, 422, 200),
        ({"password": "a brand new one"}, 303, 302),
    ):  # fmt: skip
        answer = await web.post(
            "/admin/users/save", headers=boss, data=other | change, follow_redirects=False
        )
        assert answer.status_code == status
        found = await web.get("/", headers=tech, follow_redirects=False)
        assert found.status_code == left
        assert (await find_token(ledger, token) is None) == (left == 302)
    assert (await actions(web)).count("tokens ended") == 1
    assert await audit.verify(ledger) is None


async def test_an_address_is_one_in_any_letter_case(web: Client, enter: Any) -> None:
    """It names a person who is there: nobody is added over them, or locked out by themselves."""
    boss, tech = await enter(web, "admin"), await enter(web, "technician")
    ledger = web.app.state.engine.ledger
    before = await export_site(ledger)
    form = {"new": "yes", "email": "Tech@Example.org", "name": "Somebody new", "role": "auditor",
            "password": "a brand new one", "disabled": "on"}  # fmt: skip
    refused = await web.post("/admin/users/save", headers=boss, data=form)
    assert refused.status_code == 422
    assert "there is a user called tech@example.org already" in refused.text
    for kept in ('value="Somebody new"', "<option selected>auditor", 'name="disabled" checked'):
        assert kept in refused.text
    assert await export_site(ledger) == before
    assert (await web.get("/", headers=tech, follow_redirects=False)).status_code == 200
    for change in ({"role": "auditor"}, {"role": "admin", "disabled": "on"}):
        own = {"new": "no", "email": "BOSS@example.org"} | change
        answer = await web.post("/admin/users/save", headers=boss, data=own)
        assert answer.status_code == 422
        assert "another administrator" in answer.text
    fresh = {"new": "yes", "email": "New@Example.org", "role": "auditor", "password": "0123456789"}
    made = await web.post("/admin/users/save", headers=boss, data=fresh, follow_redirects=False)
    assert made.status_code == 303
    said = await ledger.fetch("SELECT facts FROM audit WHERE action = 'site changed'")
    assert "new@example.org" in said[-1]["facts"]


@pytest.mark.parametrize("trusted", [False, True])
async def test_rotating_addresses_help_nobody_guess(make_web: Any, trusted: bool) -> None:
    """Ten guesses a minute an account, whatever X-Forwarded-For says, behind a proxy or not."""
    proxies = 'trusted_proxies = ["127.0.0.0/8"]\n' if trusted else ""
    client = await make_web(f"[web]\n{proxies}[plugins.http_upload]\n")
    transport_peer(client, "127.0.0.1")
    said = []
    for guess in range(14):
        headers = {"X-Forwarded-For": f"203.0.113.{guess}, 198.51.100.{guess}"}
        answer = await sign_in(client, f"guess number {guess}", **headers)
        said.append("Too many" in answer.text)
    assert said == [False] * 10 + [True] * 4
    # Also the right one has to wait, from anywhere.
    assert (await sign_in(client, "a good password")).status_code == 401


async def test_the_nearest_untrusted_address_counts(make_web: Any) -> None:
    """A client's own header says nothing; a trusted proxy's does, from the right."""
    from rso.web.client import peer_address  # noqa: PLC0415

    client = await make_web('[web]\ntrusted_proxies = ["10.0.0.0/8"]\n[plugins.http_upload]\n')

    def at(peer: str, *forwarded: str) -> str:
        from litestar.testing import RequestFactory  # noqa: PLC0415

        request = RequestFactory(app=client.app).get(
            "/", headers={"X-Forwarded-For": ", ".join(forwarded)} if forwarded else {}
        )
        request.scope["client"] = (peer, 1)
        return peer_address(request)

    assert at("203.0.113.9", "198.51.100.1") == "203.0.113.9"
    assert at("10.1.1.1", "198.51.100.1") == "198.51.100.1"
    assert at("10.1.1.1", "1.2.3.4", "198.51.100.1", "10.9.9.9") == "198.51.100.1"
    assert at("10.1.1.1") == "10.1.1.1"
    assert at("10.1.1.1", "nonsense") == "10.1.1.1"
    assert at("::ffff:10.1.1.1", "2001:db8::1") == "2001:db8::1"


async def test_a_session_is_never_taken_over(web: Client) -> None:
    """A cookie from before signing in is not adopted, and what it opened ends."""
    planted = "planted-by-somebody-else"
    first = await sign_in(web, "a good password", Cookie=f"rso_session={planted}")
    cookie = first.cookies["rso_session"]
    assert cookie != planted
    web.cookies.clear()
    answer = await web.get(
        "/", headers={"Cookie": f"rso_session={planted}"}, follow_redirects=False
    )
    assert answer.status_code in {302, 401}
    second = await sign_in(web, "a good password", Cookie=f"rso_session={cookie}")
    web.cookies.clear()
    assert second.cookies["rso_session"] != cookie
    answer = await web.get(
        "/", headers={"Cookie": f"rso_session={cookie}", "Accept": "text/html"},
        follow_redirects=False,
    )  # fmt: skip
    assert answer.status_code == 302


async def test_cookies_are_secure_behind_tls(make_web: Any) -> None:
    """By the base URL, or by what a trusted proxy says; an untrusted one says nothing."""
    for toml, header, secure in (
        ("", {}, False),
        ("", {"X-Forwarded-Proto": "https"}, False),
        ('[web]\ntrusted_proxies = ["127.0.0.1/32"]\n', {"X-Forwarded-Proto": "https"}, True),
        ('[site]\nbase_url = "https://rso.example.org"\n', {}, True),
    ):
        client = await make_web(f"{toml}[plugins.http_upload]\n")
        transport_peer(client, "127.0.0.1")
        answer = await sign_in(client, "a good password", **header)
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert ("secure" in cookie) is secure, (toml, header)


def transport_peer(client: Client, address: str) -> None:
    """Say from where the test client comes."""
    asgi = client.app.asgi_handler

    async def from_there(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["client"] = (address, 1)
        await asgi(scope, receive, send)

    client.app.asgi_handler = from_there
