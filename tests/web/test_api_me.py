"""The caller, messages and tokens over the JSON API: contacts, sessions, matters, sources' tokens."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.core.errors import ConfigError, PermanentTransportError
from rso.core.exam import Exam, Patient
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.engine.matters import open_matter
from rso.engine.notify import said, write_notification
from rso.ledger.contacts import contacts_of
from rso.ledger.people import Person, upsert_user
from rso.ledger.sessions import create_session, find_session
from rso.ledger.site import load_site
from rso.ledger.tokens import create_token, find_source_token, find_token
from rso.web import api_messages

pytestmark = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
ME, OTHER, LEAD, SOUTH = (
    "tech@north.example", "other@north.example", "lead@example.org", "tech@south.example",
)  # fmt: skip
Client = AsyncTestClient[Litestar]


class Postman:
    """A channel that keeps what it is given."""

    sent: list[Any] = []  # noqa: RUF012
    broken = False

    def __init__(self, _config: Any) -> None:
        """Nothing is configured."""

    def check_address(self, address: str) -> str:
        """Only what has an @."""
        if "@" not in address:
            raise ConfigError("this is no address")
        return address.lower()

    async def send(self, message: Any) -> None:
        """Keep it, or say that it cannot be sent."""
        if Postman.broken:
            raise PermanentTransportError("the post is on strike")
        Postman.sent.append(message)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def client(clinics: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """The application, in this process, with one channel."""
    monkeypatch.setattr(Postman, "sent", [])
    monkeypatch.setitem(clinics.plugins.notifiers, "email", (Postman, None))
    async with AsyncTestClient(create_app(clinics, None, [])) as made:
        yield made


@pytest.fixture
async def exam(clinics: Engine) -> Exam:
    """An exam of NORTH."""
    patient = Patient(name="SECRET^JANE")
    return await create_exam(clinics, facility="NORTH", patient=patient, actor="customer")


async def bearer(engine: Engine, email: str = ME, role: str = "") -> dict[str, str]:
    """Headers of somebody's token; with a role of a person of NORTH made for it."""
    if role:
        await upsert_user(engine.ledger, email=email, role=role, facilities=("NORTH",))
    return {"Authorization": f"Bearer {await create_token(engine.ledger, email=email)}"}


async def enter(engine: Engine, email: str = ME) -> dict[str, str]:
    """Headers of a session."""
    person = Person(email=email, name="", role="technician", facilities=("NORTH",))
    secret = await create_session(engine.ledger, person, agent="a browser")
    found = await find_session(engine.ledger, secret)
    assert found is not None
    return {"Cookie": f"rso_session={secret}", "X-CSRF-Token": found.csrf}


async def test_a_contact_is_added_proven_and_told_what_it_wants(
    clinics: Engine, client: Client
) -> None:
    """A code goes to the address; what is wrong changes nothing, and nobody else's can be touched."""
    me, url = await bearer(clinics), "/api/me/contacts"
    assert (await client.get("/api/me", headers=me)).json() == {
        "email": ME, "name": "", "role": "technician", "facilities": ["NORTH"],
    }  # fmt: skip
    assert (await client.get(url, headers=me)).json() == {"contacts": [], "channels": ["email"]}
    for wrong in ({"channel": "pigeon", "address": "a@b.c"}, {"channel": "email", "address": "x"}):
        assert (await client.post(url, headers=me, json=wrong)).status_code == 400
    made = await client.post(
        url, headers=me, json={"channel": "email", "address": "T@home.example"}
    )
    assert made.status_code == 201, made.text
    (contact,) = made.json()["contacts"]
    assert (contact["address"], contact["proven"]) == ("t@home.example", False)
    (message,) = Postman.sent
    (code,) = set(re.findall(r"\b\d{6}\b", str(message)))
    assert code not in made.text
    here = f"{url}/{contact['id']}"
    for bad in ("", "12345x"):
        answer = await client.post(f"{here}/confirm", headers=me, json={"code": bad})
        assert answer.status_code == 400
    proven = await client.post(f"{here}/confirm", headers=me, json={"code": code})
    assert proven.json()["contacts"][0]["proven"] is True
    wanted = {"events": ["study_held", "exam_created"], "quiet": "22:00-07:00",
              "timezone": "Europe/Berlin", "breaks_quiet": "yes"}  # fmt: skip
    saved = (await client.put(here, headers=me, json=wanted)).json()["contacts"][0]
    assert {name: saved[name] for name in wanted} == {
        **wanted, "events": ["exam_created", "study_held"],
    }  # fmt: skip
    for wrong in ({"events": ["lunch"]}, {"quiet": "at night"}, {"quiet": "25:00-07:00"},
                  {"quiet": "22:00-07:00", "timezone": "Mars"}, {"breaks_quiet": "maybe"}):  # fmt: skip
        assert (await client.put(here, headers=me, json=wrong)).status_code == 400, wrong
    assert (await client.get(url, headers=me)).json()["contacts"] == [saved]
    other = await bearer(clinics, OTHER)
    for answer in (
        await client.put(here, headers=other, json=wanted),
        await client.delete(here, headers=other),
        await client.post(f"{here}/confirm", headers=other, json={"code": code}),
    ):
        assert answer.status_code == 404
    assert (await client.delete(here, headers=me)).status_code == 204
    assert await contacts_of(clinics.ledger, ME) == []


async def test_a_code_that_cannot_be_sent_is_said(
    clinics: Engine, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the channel's words; and nobody is sent codes without end."""
    monkeypatch.setattr(Postman, "broken", True)
    me, body = await bearer(clinics), {"channel": "email", "address": "t@home.example"}
    answers = [await client.post("/api/me/contacts", headers=me, json=body) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [503] * 5 + [429]
    assert answers[0].json()["detail"] == "the post is on strike"
    assert answers[0].headers["content-type"].startswith("application/problem+json")


async def test_sessions_are_ended_by_a_session(clinics: Engine, client: Client) -> None:
    """One, or all others; a token sees them and ends none, and nobody ends another's."""
    me, spare, other = await enter(clinics), await enter(clinics), await enter(clinics, OTHER)
    await enter(clinics)
    url, token = "/api/me/sessions", await bearer(clinics)
    found = (await client.get(url, headers=me)).json()["sessions"]
    assert ([s["own"] for s in found], found[0]["agent"]) == ([True, False, False], "a browser")
    seen = (await client.get(url, headers=token)).json()["sessions"]
    assert [s["id"] for s in seen] == [s["id"] for s in found]
    assert not any(s["own"] for s in seen)
    second = f"{url}/{found[1]['id']}"
    for headers, status in ((token, 403), (other, 404), ({"Cookie": me["Cookie"]}, 403), (me, 204),
                            (me, 404)):  # fmt: skip
        assert (await client.delete(second, headers=headers)).status_code == status
    assert (await client.get(url, headers=spare)).status_code == 401
    assert (await client.delete(url, headers=token)).status_code == 403
    assert (await client.delete(url, headers=me)).status_code == 204
    assert [s["own"] for s in (await client.get(url, headers=me)).json()["sessions"]] == [True]
    assert (await client.get(url, headers=other)).status_code == 200


async def test_a_message_that_failed_is_sent_again(
    clinics: Engine, client: Client, exam: Exam
) -> None:
    """Once, by a coordinator of its facility, however many came after it; the audit says who."""
    ledger, me = clinics.ledger, await bearer(clinics, "coord@x.example", "coordinator")
    await upsert_user(ledger, email=SOUTH, role="coordinator", facilities=("SOUTH",))
    contact = {"id": exam.id, "owner": ME, "channel": "email"}
    for number in range(3):
        await write_notification(
            ledger, "manual", exam, [contact], facility="NORTH", dedupe=f"m{number}"
        )
    assert len((await client.get("/api/notifications", headers=me)).json()["messages"]) == 3
    await ledger.execute(
        "UPDATE outbox SET created_at = ?", exam.created_at
    )  # at once, all of them
    all_ = (await client.get("/api/notifications", headers=me)).json()
    assert all_["next"] is None
    seen, cursor = list[dict[str, Any]](), ""
    while cursor is not None:
        asked = {"limit": 1, "cursor": cursor}
        page = (await client.get("/api/notifications", headers=me, params=asked)).json()
        seen, cursor = seen + page["messages"], page["next"]
    assert seen == all_["messages"]
    for wrong in ("x", "1_x", f"{10**17}_{exam.id}", f"-1_{exam.id}", "_"):
        bad = await client.get("/api/notifications", headers=me, params={"cursor": wrong})
        assert bad.status_code == 400, wrong
    oldest = (await ledger.fetch("SELECT id FROM outbox WHERE dedupe = 'm0'"))[0]["id"]
    url = f"/api/notifications/{oldest}/retry"
    assert (await client.post(url, headers=me)).status_code == 409
    await ledger.execute("UPDATE outbox SET state = 'failed' WHERE id = ?", oldest)
    for email, status in ((SOUTH, 404), (ME, 403)):
        answer = await client.post(url, headers=await bearer(clinics, email))
        assert answer.status_code == status
    answer = await client.post(url, headers=me)
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert answer.json()["exam_number"] == exam.number
    assert (await client.post(url, headers=me)).status_code == 409
    assert (await client.get("/api/notifications?limit=0", headers=me)).status_code == 400
    told = await ledger.fetch("SELECT actor FROM audit WHERE action = 'message sent again'")
    assert [row["actor"] for row in told] == ["coord@x.example"]


async def test_a_message_has_one_shape(
    clinics: Engine, client: Client, exam: Exam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below its exam, in the list of all, and sent again; a list that is cut says so."""
    ledger, me = clinics.ledger, await bearer(clinics, "coord@x.example", "coordinator")
    contact = {"id": exam.id, "owner": ME, "channel": "sms"}
    await write_notification(ledger, "manual", exam, [contact], facility="NORTH", dedupe="m")
    line = said("sms", "+12025550100", "not there: no such number")
    await ledger.execute(
        "UPDATE outbox SET state = 'failed', history = ? WHERE dedupe = 'm'",
        msgspec.json.encode([line]).decode(),
    )
    (row,) = await ledger.fetch("SELECT id FROM outbox WHERE dedupe = 'm'")
    url = f"/api/exams/{exam.number}/notifications"
    of_exam = (await client.get(url, headers=me)).json()
    (listed,) = (await client.get("/api/notifications", headers=me)).json()["messages"]
    assert of_exam["notifications"] == [listed]
    assert of_exam["more"] is False
    assert (listed["id"], listed["exam_number"]) == (str(row["id"]), exam.number)
    (told,) = listed["history"]
    assert datetime.fromisoformat(told["at"]) == datetime.fromisoformat(line["at"])
    assert {**told, "at": line["at"]} == line
    again = await client.post(f"/api/notifications/{listed['id']}/retry", headers=me)
    assert again.json() == {**listed, "state": "queued",
                            "created_at": again.json()["created_at"]}  # fmt: skip
    monkeypatch.setattr(api_messages, "_MOST", 1)
    await write_notification(ledger, "manual", exam, [contact], facility="NORTH", dedupe="n")
    cut = (await client.get(url, headers=me)).json()
    assert (len(cut["notifications"]), cut["more"]) == (1, True)


async def test_a_matter_is_acknowledged_by_whose_work_it_is(
    clinics: Engine, client: Client, exam: Exam
) -> None:
    """The first who says so has it; auditors and strangers cannot, and nothing names the patient."""
    matter = await open_matter(
        clinics.ledger, "delivery_failed", exam, facility="NORTH", about=exam.id
    )
    auditor = await bearer(clinics, "auditor@x.example", "auditor")
    me, lead, stranger = [await bearer(clinics, email) for email in (ME, LEAD, SOUTH)]
    url = f"/api/matters/{matter}"
    assert (await client.get(url, headers=auditor)).json()["may_acknowledge"] is False
    assert (await client.post(f"{url}/acknowledge", headers=auditor)).status_code == 403
    assert (await client.post(f"{url}/acknowledge", headers=stranger)).status_code == 404
    (shown,) = (await client.get(f"/api/exams/{exam.number}/matters", headers=me)).json()["matters"]
    assert (shown["id"], shown["seen_to_by"], shown["may_acknowledge"]) == (matter, "", True)
    answer = await client.post(f"{url}/acknowledge", headers=me)
    assert answer.status_code == 200, answer.text
    assert "SECRET" not in answer.text
    assert (answer.json()["state"], answer.json()["seen_to_by"]) == ("done", ME)
    assert answer.json()["history"][-1]["person"] == ME
    again = (await client.post(f"{url}/acknowledge", headers=lead)).json()
    assert (again["seen_to_by"], again["may_acknowledge"]) == (ME, False)
    told = await clinics.ledger.fetch("SELECT actor FROM audit WHERE action = 'acknowledged'")
    assert [row["actor"] for row in told] == [ME]


async def test_tokens_of_sources_and_of_everybody(clinics: Engine, client: Client) -> None:
    """An administrator makes one for a source and ends anybody's; each is in the audit."""
    ledger = clinics.ledger
    await load_site(ledger, {"facility": [{"code": "NORTH", "sources": [
        {"channel": "http_upload", "identity": "gateway", "kind": "integration", "networks": ["10.0.0.0/8"]}]}]})  # fmt: skip
    await upsert_user(ledger, email="boss@x.example", role="admin", facilities=())
    boss, lead, url = (
        await bearer(clinics, "boss@x.example"),
        await bearer(clinics, LEAD),
        "/api/site/tokens",
    )
    body = {"source": "gateway", "name": "nightly"}
    assert (await client.post(url, headers=lead, json=body)).status_code == 403
    assert (await client.get(url, headers=lead)).status_code == 403
    assert (await client.post(url, headers=boss, json={**body, "source": "x"})).status_code == 400
    made = await client.post(url, headers=boss, json=body)
    assert made.status_code == 201
    token = made.json()["token"]
    assert await find_source_token(ledger, token) == "gateway"
    assert await find_token(ledger, token) is None
    found = (await client.get(url, headers=boss)).json()["tokens"]
    assert token not in str(found)
    key = {entry["source"] or entry["person"]: entry["id"] for entry in found}
    assert set(key) == {"gateway", LEAD, "boss@x.example"}
    for name in ("gateway", LEAD):
        assert (await client.delete(f"{url}/{key[name]}", headers=lead)).status_code in {401, 403}
        assert (await client.delete(f"{url}/{key[name]}", headers=boss)).status_code == 204
        assert (await client.delete(f"{url}/{key[name]}", headers=boss)).status_code == 404
    assert await find_source_token(ledger, token) is None
    assert (await client.get("/api/me", headers=lead)).status_code == 401
    told = await ledger.fetch("SELECT action FROM audit WHERE action LIKE 'token%' ORDER BY id")
    assert [row["action"] for row in told] == ["token made", "token ended", "token ended"]
