"""Telling people from the form and the exam's page: who can be told, and what is said of it."""

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import Response
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.ledger import new_id, tables
from rso.ledger.site import load_site
from rso.web import notifying

Client = AsyncTestClient[Litestar]
SITE: dict[str, Any] = {
    "facility": [{"code": f"F{n:02}"} for n in range(25)] + [{"code": "SOUTH"}],
    "user": [
        {"email": "north@example.org", "role": "technician", "facilities": ["NORTH"],
         "contacts": [{"channel": "email", "address": "north@example.org"}]},
        {"email": "south@example.org", "role": "technician", "facilities": ["SOUTH"],
         "contacts": [{"channel": "email", "address": "south@example.org"}]},
        {"email": "all@example.org", "role": "coordinator",
         "contacts": [{"channel": "email", "address": "all@example.org"}]},
    ],
}  # fmt: skip


@pytest.fixture
async def mailing(make_web: Any) -> Client:
    """The application with the email plugin, and a site of many facilities."""
    client: Client = await make_web(
        '[plugins.http_upload]\n[plugins.email]\nurl = "mailto://127.0.0.1:1?from=rso@example.org"\n'
    )
    await load_site(client.app.state.engine.ledger, SITE)
    return client


async def test_the_form_says_whose_people_they_are(mailing: Client, enter: Any) -> None:
    """Of all of one's facilities, however many; of one facility alone there is nothing to say."""
    shown = (await mailing.get("/exams/new", headers=await enter(mailing, "coordinator"))).text
    assert '<tr data-at="SOUTH">' in shown
    assert '<td data-label="Facility">every one</td>' in shown
    alone = await enter(mailing, email="tech@example.org")
    shown = (await mailing.get("/exams/new", headers=alone)).text
    assert "notify:north@example.org:email" in shown
    assert "south@example.org" not in shown
    assert "data-at" not in shown


@pytest.mark.parametrize("named", [False, True])
async def test_who_reads_the_patients_name_is_said_as_it_is(
    make_web: Any, enter: Any, named: bool
) -> None:
    """Where mails name the patient, no page says that no message does."""
    client: Client = await make_web(
        "[plugins.http_upload]\n[plugins.email]\n"
        'url = "mailtos://user:password@127.0.0.1:1?from=rso@example.org"\n'
        f"patient_data = {str(named).lower()}\n"
    )
    await load_site(client.app.state.engine.ledger, SITE)
    me = await enter(client, "coordinator")
    contacts = (await client.get("/me", headers=me)).text
    assert ("Only messages by email name the patient." in contacts) is named
    assert ("Messages never name a patient." in contacts) is not named
    form = (await client.get("/exams/new", headers=me)).text
    made = await client.post("/api/exams", headers=me, json={
        "facility": "NORTH", "patient_name": "DOE", "indication": "pain"})  # fmt: skip
    exam = (await client.get(f"/exams/{made.json()['exam_number']}", headers=me)).text
    for shown in (form, exam):
        assert ("who the patient is by email only" in shown) is named
        assert ("never who the patient is" in shown) is not named


async def send(client: Client, me: dict[str, str], path: str, form: dict[str, str]) -> Response:
    """Post a form; the page that it leads to."""
    sent = await client.post(path, headers=me, data=form, follow_redirects=False)
    assert sent.status_code == 303, sent.text
    return await client.get(sent.headers["location"], headers=me)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["north"], "Told: north@example.org."),
        (["south"], "Nobody could be told: only people of NORTH"),
        (["north", "south"], "1 of those you chose cannot be told: only people of NORTH"),
    ],
)
async def test_whom_an_exam_was_told(
    mailing: Client, enter: Any, chosen: list[str], said: str
) -> None:
    """With the request, with the same form again, and from the exam's page; the note stays."""
    me = await enter(mailing, "coordinator")
    boxes = {f"notify:{name}@example.org:email": "on" for name in chosen}
    form = {"facility": "NORTH", "family": "DOE", "indication": "pain", "note": "in room 2",
            "draft": "0190a1b2-0000-7000-8000-000000000001", **boxes}  # fmt: skip
    for _ in range(2):
        made = await send(mailing, me, "/exams/new", form)
        assert made.url.path.endswith("/created")
        assert said in made.text
        assert "@" not in str(made.url.query)
    exam = made.url.path.removesuffix("/created")
    assert (await mailing.get(exam, headers=me)).text.count("in room 2") == 1
    told = await send(mailing, me, f"{exam}/notify", {**boxes, "note": "and waits"})
    assert said in told.text
    assert "and waits" in told.text
    # An address of a page by itself says nothing.
    assert "Told:" not in (await mailing.get(f"{exam}?told=x", headers=me)).text
    nobody = await send(mailing, me, f"{exam}/notify", {"note": "later"})
    assert "Nobody was chosen" in nobody.text


async def test_a_note_that_is_too_long_is_there_still(mailing: Client, enter: Any) -> None:
    """On the exam's page, with why beside it and whom was ticked; nothing of it is kept."""
    me = await enter(mailing, "coordinator")
    made = await mailing.post("/api/exams", headers=me, json={
        "facility": "NORTH", "patient_name": "DOE", "indication": "pain"})  # fmt: skip
    exam, box = f"/exams/{made.json()['exam_number']}", "notify:north@example.org:email"
    for path, field, more in (("notes", "own-note", {}), ("notify", "note", {box: "on"})):
        note = f"{path} " + "x" * 2001
        answer = await mailing.post(f"{exam}/{path}", headers=me, data={"note": note, **more})
        assert answer.status_code == 400
        (area,) = re.findall(rf'<textarea id="{field}".*?</textarea>', answer.text)
        assert note in area
        assert f'aria-describedby="{field}-problem"' in area
        assert f"A note has at most 2000 characters; here are {len(note)}." in answer.text
        assert (f'name="{box}" checked' in answer.text) is (path == "notify")
    assert "No notes." in (await mailing.get(exam, headers=me)).text


async def test_a_contact_form_keeps_what_was_typed(mailing: Client, enter: Any) -> None:
    """A wrong address, code or time is marked and stays, beside the rest; nothing is saved."""
    me = await enter(mailing, email="north@example.org")
    ledger = mailing.app.state.engine.ledger
    wrong = await mailing.post(
        "/me/contacts", headers=me, data={"channel": "email", "address": "no <address>"}
    )
    assert wrong.status_code == 422
    assert 'value="no &lt;address&gt;" aria-invalid="true"' in wrong.text
    before = await ledger.fetch("SELECT * FROM contact ORDER BY id")
    key = next(row["id"] for row in before if row["owner"] == "north@example.org")
    form = {"quiet": "at night", "timezone": "Europe/Berlin", "breaks_quiet": "no",
            "event:study_held": "on"}  # fmt: skip
    kept = await mailing.post(f"/me/contacts/{key}/save", headers=me, data=form)
    assert kept.status_code == 422
    for said in ('value="at night"', 'value="Europe/Berlin"', '<option value="no" selected>',
                 'name="event:study_held" checked', 'aria-describedby="problem"'):  # fmt: skip
        assert said in kept.text
    assert await ledger.fetch("SELECT * FROM contact ORDER BY id") == before
    await ledger.execute("UPDATE contact SET verified_at = NULL WHERE id = ?", key)
    code = await mailing.post(f"/me/contacts/{key}/confirm", headers=me, data={"code": "12345x"})
    assert code.status_code == 422
    assert 'value="12345x" aria-invalid="true"' in code.text


async def test_messages_are_read_to_their_end(
    mailing: Client, enter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page leads to the next until there is none, and the oldest can be sent again."""
    monkeypatch.setattr(notifying, "_PAGE", 2)
    ledger = mailing.app.state.engine.ledger
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    ids = [new_id() for _ in range(5)]
    await ledger.insert_rows(tables.Outbox, [
        {"id": key, "kind": "notify", "event": "manual", "dedupe": key, "facility": "NORTH",
         "recipient": f"r{n}@example.org", "channel": "email", "state": "failed",
         "next_at": at, "created_at": at + timedelta(minutes=n // 2)}
        for n, key in enumerate(ids)
    ])  # fmt: skip
    me = await enter(mailing, "coordinator")
    found, path, pages = list[str](), "/notifications", 0
    while path:
        text = (await mailing.get(path, headers=me)).text
        found += re.findall(r"r\d@example", text)
        pages += 1
        link = re.search(r'rel="next" href="([^"]+)"', text)
        path = html.unescape(link[1]) if link else ""
    assert pages == 3
    assert found == [f"r{n}@example" for n in (4, 3, 2, 1, 0)]
    await send(mailing, me, f"/notifications/{ids[0]}", {})
    (row,) = await ledger.fetch("SELECT state FROM outbox WHERE id = ?", ids[0])
    assert row["state"] == "queued"
    for typed, status in (("soon", 400), ("9999-12-31T23:59-14:00", 200)):
        answer = await mailing.get("/notifications", headers=me,
                                   params={"at": typed, "before": ids[0]})  # fmt: skip
        assert answer.status_code == status


async def test_what_a_provider_says_twice_is_read_once(mailing: Client) -> None:
    """The state of a message, and its provider's own word for the same."""
    assert mailing.app.template_engine is not None
    macros = mailing.app.template_engine.get_template("notify.html").module  # type: ignore[attr-defined]
    line = {"at": "2026-03-01T12:00:00+00:00", "channel": "sms", "to": "***1"}
    for said, shown in (("accepted: accepted", "accepted"),
                        ("failed: the provider answered 404", "failed: the provider answered 404")):  # fmt: skip
        row = {"recipient": "a", "event": "manual", "state": "accepted",
               "history": [{**line, "result": said}]}  # fmt: skip
        assert f"SMS ***1: {shown}</li>" in macros.timeline([row])
