"""What may cost nothing, and gives nothing away: guesses, tokens, endless bodies."""

import re
from typing import Any

import pytest
from litestar import Litestar, Request
from litestar.testing import AsyncTestClient

from rso.core.turns import Turns
from rso.ledger import people
from rso.ledger.site_export import export_site
from rso.ledger.tokens import create_token

Client = AsyncTestClient[Litestar]


def secret_of(text: str) -> str:
    """The secret to enrol with that a page shows."""
    found = re.search(r'or enter <span class="number">(\w+)</span>', text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    "path", ["/api/exams/X/studies", "/dicomweb/studies", "/api/exams/X/uploads/1.2.3"]
)
async def test_a_body_without_bound_is_read_for_no_csrf_token(
    web: Client, enter: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Where bodies are streams, the token counts in the header only; nobody joins them for it."""
    read = []
    whole = Request.form

    async def form(self: Any) -> Any:
        read.append(self.url.path)
        return await whole(self)

    monkeypatch.setattr(Request, "form", form)
    headers = await enter(web, "technician")
    token = headers.pop("X-CSRF-Token")
    method = "PATCH" if "uploads" in path else "POST"
    answer = await web.request(method, path, headers=headers, data={"_csrf": token})
    assert (answer.status_code, read) == (403, [])
    # A form of bounded size may carry it.
    answer = await web.post("/me/security/sessions", headers=headers, data={"_csrf": token})
    assert answer.status_code == 200
    assert read


async def test_the_secret_to_enrol_with_is_fresh_and_for_no_token(web: Client, enter: Any) -> None:
    """A token reads no secret; an earlier one counts no more; a mistyped code keeps it."""
    ledger = web.app.state.engine.ledger
    token = await create_token(ledger, email="tech@example.org")
    answer = await web.get("/me/security", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
    rows = await ledger.fetch("SELECT totp_secret FROM user_account")
    assert {row["totp_secret"] for row in rows} == {""}
    me = await enter(web, "technician")
    first = secret_of((await web.get("/me/security", headers=me)).text)
    second = secret_of((await web.get("/me/security", headers=me)).text)
    assert first != second
    wrong = await web.post("/me/security/begin", headers=me, data={"code": "nonsense"})
    assert wrong.status_code == 422
    assert secret_of(wrong.text) == second


async def test_a_short_password_is_refused_by_the_api(web: Client, enter: Any) -> None:
    """As the form refuses it; a document's is loaded and told of."""
    boss = await enter(web, "admin")
    where, change = "/api/users/tech@example.org", {"role": "technician", "facilities": ["NORTH"]}
    ledger = web.app.state.engine.ledger
    before = await export_site(ledger)
    json = boss | {"Accept": "application/json"}
    answer = await web.put(where, headers=json, json=change | {"password": "123456789"})
    assert answer.status_code == 400
    assert "at least 10 characters" in answer.json()["detail"]
    assert await export_site(ledger) == before
    for password in ("", "1234567890"):
        answer = await web.put(where, headers=json, json=change | {"password": password})
        assert answer.status_code == 204
    user = {"email": "tech@example.org", "password": "123456789", **change}
    loaded = await web.put("/api/site", headers=json, json={"user": [user]})
    assert loaded.json()["warnings"] == [
        "user tech@example.org: the password has less than 10 characters"
    ]


async def test_the_form_of_a_facility_keeps_a_channel_it_does_not_know(
    web: Client, enter: Any
) -> None:
    """A source of any other plugin is shown and saved with its own channel."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    source = {"channel": "carrier_pigeon", "identity": "coop", "kind": "integration",
              "networks": ["10.1.2.0/24"]}  # fmt: skip
    json = boss | {"Accept": "application/json"}
    document = {"facility": [{"code": "EAST", "sources": [source]}]}
    assert (await web.put("/api/site", headers=json, json=document)).status_code == 200
    shown = (await web.get("/admin/facilities/edit/EAST", headers=boss)).text
    chosen = re.findall(r'name="source-01-channel".*?<option selected>(\w+)', shown)
    assert chosen == ["carrier_pigeon"]
    empty = re.findall(r'name="source-02-channel".*?</select>', shown)[0]
    assert re.findall(r"<option>(\w+)", empty) == ["dicom_scp", "ftp", "http_upload"]
    form = {"new": "no", "code": "EAST", "source-01-channel": chosen[0],
            "source-01-identity": "coop", "source-01-kind": "integration",
            "source-01-networks": "10.1.2.0/24",
            **dict(re.findall(r'name="(shown)" value="(\w+)"', shown))}  # fmt: skip
    saved = await web.post(
        "/admin/facilities/save", headers=boss, data=form, follow_redirects=False
    )
    assert saved.status_code == 303
    rows = await ledger.fetch("SELECT channel FROM source WHERE identity = 'coop'")
    assert [row["channel"] for row in rows] == ["carrier_pigeon"]


async def test_who_finds_the_queue_full_is_told_when_to_come(
    web: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words on the page, and in the header for programs."""
    monkeypatch.setattr(people, "_SIGN_INS", Turns(1, most=0))
    form = {"email": "tech@example.org", "password": "a good password"}
    for kind in ("text/html", "application/json"):
        answer = await web.post("/sign-in", data=form, headers={"Accept": kind})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
        assert "try again in ten seconds" in answer.text


async def test_nothing_is_hashed_while_the_database_is_held(
    web: Client, enter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By form, document and API: everybody else would wait for it."""
    boss = await enter(web, "admin")
    ledger = web.app.state.engine.ledger
    held: list[bool] = []

    class Watched:
        def hash(self, password: str) -> str:
            held.append(ledger._driver._write_lock.locked())
            return f"$argon2 of {len(password)}"

    def look(password: str, hashed: str) -> bool:
        held.append(ledger._driver._write_lock.locked())
        return hashed == f"$argon2 of {len(password)}"

    monkeypatch.setattr(people, "HASHER", Watched())
    monkeypatch.setattr(people, "is_right", look)
    source = {"channel": "ftp", "identity": "EAST", "kind": "technician", "password": "secret"}
    document = {
        "facility": [{"code": "EAST", "sources": [source]}],
        "user": [{"email": "new@example.org", "role": "auditor", "password": "a new password"}],
    }
    json = boss | {"Accept": "application/json"}
    for _ in range(2):
        assert (await web.put("/api/site", headers=json, json=document)).status_code == 200
    form = {"new": "yes", "email": "x@example.org", "role": "auditor", "password": "0123456789"}
    facility = {"new": "yes", "code": "WEST", "source-01-channel": "ftp",
                "source-01-identity": "WEST", "source-01-password": "secretive"}  # fmt: skip
    for section, sent in (("users", form), ("facilities", facility)):
        saved = await web.post(
            f"/admin/{section}/save", headers=boss, data=sent, follow_redirects=False
        )
        assert saved.status_code == 303
    short = await web.post("/admin/users/save", headers=boss, data=form | {
        "email": "y@example.org", "password": "123456789"})  # fmt: skip
    assert short.status_code == 422
    assert held
    assert not any(held)
    rows = await ledger.fetch(
        "SELECT email AS who, password_hash AS hash FROM user_account UNION ALL"
        " SELECT identity, password_hash FROM source"
    )
    made = {row["who"]: row["hash"] for row in rows}
    for who, length in (("new@example.org", 14), ("x@example.org", 10), ("EAST", 6), ("WEST", 9)):
        assert made[who] == f"$argon2 of {length}"
