"""Every route of the application, for every role of one facility, aimed at another facility.

Nothing of the other is read or changed. The routes are found in the application, so that a new
one is part of this without anybody thinking of it.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient
from litestar import Litestar

from rso.app import create_app
from rso.core.exam import Exam, Patient
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.documents import add_document
from rso.engine.exams import create_exam
from rso.engine.matters import open_matter
from rso.engine.notify import write_notification
from rso.ledger import Ledger, audit, new_id, tables
from rso.ledger.contacts import contacts_of
from rso.ledger.exams import now
from rso.ledger.holds import open_hold
from rso.ledger.people import Person, upsert_user
from rso.ledger.sessions import create_session, find_session
from rso.ledger.site import load_site
from rso.ledger.tokens import create_token
from rso.plugins import Bans, load_plugins
from rso.settings import load_settings

ROLES = ("customer", "technician", "coordinator", "auditor")
SECRET = "SENTINELSOUTH"
SITE: dict[str, Any] = {
    "facility": [
        {"code": "NORTH", "radiologists": [{"code": "R"}]},
        {"code": "SOUTH", "radiologists": [{"code": SECRET}]},
    ],
    "radiologist": [
        {"code": "R", "destinations": [{"code": "R-PACS", "sender": "dicom_scu", "options": {}}]},
        {"code": SECRET, "destinations": [
            {"code": f"{SECRET}-PACS", "sender": "dicom_scu", "options": {}}]},
    ],
    "user": [
        *({"email": f"{role}@north.example", "role": role, "facilities": ["NORTH"]}
          for role in ROLES),
        {"email": f"{SECRET.lower()}@south.example", "role": "technician", "facilities": ["SOUTH"],
         "contacts": [{"channel": "email", "address": f"{SECRET}@south.example"}]},
    ],
}  # fmt: skip
# Every route with an action, and its actions; one that is missing here fails the test.
ACTIONS = {
    "/exams/{number}/{action}": ("complete", "cancel", "retry", "notify", "close", "edit"),
    "/holds/{hold_id}/{action}": ("release", "create", "reject", "recall"),
    "/api/holds/{hold_id}/{action}": ("release", "create", "reject", "recall"),
    "/me/contacts/{contact}/{action}": ("confirm", "save", "remove"),
    "/me/security/{action}": ("begin", "end", "password", "token", "revoke", "session",
                              "sessions"),
    "/views/{action}": ("save", "remove", "first"),
    "/exams/{number}/deliveries/{code}/{action}": ("retry", "resend", "stop"),
    "/admin/people/{email}/{action}": ("second-factor", "sessions"),
    "/api/destinations/{code}/{action}": ("pause", "resume", "retry"),
    "/api/exams/{number}/deliveries/{destination}/{action}": ("retry", "resend", "stop"),
    "/api/exams/{number}/owner/{action}": ("claim", "release", "give"),
    "/api/users/{email}/{action}": ("disable", "enable", "end-sessions", "reset-second-factor"),
}  # fmt: skip
WATCHED = ("exam", "exam_document", "study", "hold", "delivery", "contact", "destination", "facility",
           "source", "outbox", "user_account", "api_token", "web_session")  # fmt: skip


class South:
    """What nobody of NORTH may touch."""

    def __init__(self, exam: Exam, hold: str, contact: str, matter: str, document: str) -> None:
        self.values = {
            "number": exam.number, "hold_id": hold, "contact": contact, "code": f"{SECRET}-PACS",
            "study": "1.2.3", "uid": "1.2.3", "matter": matter, "key": "SOUTH", "secret": "SOUTH",
            "destination": f"{SECRET}-PACS", "email": f"{SECRET.lower()}@south.example",
            "kind": "facilities", "instance": new_id(), "document": document,
        }  # fmt: skip
        self.number = exam.number


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """Loaded, with every installed plugin that needs no port."""
    file = tmp_path / "rso.toml"
    file.write_text(
        "[plugins.http_upload]\n[plugins.sms]\n"
        'url = "kannel://u:p@127.0.0.1:1/{address}"\ninbound_secret = "a secret of the site"\n'
    )
    settings = load_settings(file)
    await load_site(ledger, SITE)
    return Engine(
        ledger=ledger,
        plugins=load_plugins(settings),
        settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )


@pytest.fixture
async def south(engine: Engine) -> South:
    """An exam with a patient and a document, and a hold."""
    patient = Patient(name=f"{SECRET}^JANE", patient_id=SECRET)
    exam = await create_exam(engine, facility="SOUTH", patient=patient, actor=SECRET)
    study = new_id()
    at = now()
    columns = {column._meta.name: None for column in tables.Study._meta.columns}
    known = {
        "id": study, "facility": "SOUTH", "study_instance_uid": "1.2.3", "patient_name": SECRET,
        "patient_id": SECRET, "state": "held", "created_at": at, "updated_at": at,
    }  # fmt: skip
    required = {name: known.get(name, _blank(tables.Study, name)) for name in columns if name}
    await engine.ledger.insert_rows(tables.Study, [required])
    await open_hold(
        engine.ledger, kind="study", facility="SOUTH", study=study, row=9, reason="wrong number",
        alarm=False, evidence={"name": SECRET},
    )  # fmt: skip
    for facility in ("SOUTH", "NORTH", ""):
        facts = {"peer": "10.9.9.9", "calling": f"{SECRET}CT" if facility != "NORTH" else "NORTHCT",
                 "called": "RSO", "reason": "it came from 10.9.9.9"}  # fmt: skip
        await audit.append(
            engine.ledger, actor="receiver", action="association refused", facility=facility,
            facts=facts,
        )  # fmt: skip
    hold = (await engine.ledger.fetch("SELECT id FROM hold"))[0]["id"]
    contact = (await contacts_of(engine.ledger, f"{SECRET.lower()}@south.example"))[0]["id"]
    matter = await open_matter(
        engine.ledger, "delivery_failed", exam, facility="SOUTH", about=exam.id
    )
    document = await add_document(engine, exam, f"{SECRET}.pdf", b"%PDF-1.7", actor=SECRET)
    found = South(exam, str(hold), str(contact), matter, document)
    found.values |= await _kept_by(engine.ledger, exam, found.values["email"])
    return found


async def _kept_by(ledger: Ledger, exam: Exam, email: str) -> dict[str, str]:
    """The keys of a message that failed, of a token and of a session."""
    contacts = await contacts_of(ledger, email)
    await write_notification(ledger, "manual", exam, contacts, facility="SOUTH", dedupe="SOUTH")
    message = "UPDATE outbox SET state = 'failed' WHERE dedupe = 'SOUTH' RETURNING id"
    await create_token(ledger, email=email, name="SOUTH")
    token = "SELECT id FROM api_token WHERE name = 'SOUTH'"
    person = Person(email=email, name="", role="technician", facilities=("SOUTH",))
    await create_session(ledger, person, agent="SOUTH")
    session = (await ledger.fetch("SELECT id FROM web_session WHERE agent = 'SOUTH'"))[0]["id"]
    return {
        "message": str((await ledger.fetch(message))[0]["id"]),
        "token_id": str((await ledger.fetch(token))[0]["id"]),
        "session": session[:16],
    }


def _blank(table: Any, name: str) -> Any:
    column = table._meta.get_column_by_name(name)
    default = column.get_default_value()
    if default is not None or column._meta.null:
        return default
    kind = type(column).__name__
    return {"Varchar": "", "Text": "", "JSON": "{}", "Boolean": False, "Timestamptz": now()}.get(
        kind, 0
    )


@pytest.fixture
async def app(engine: Engine, tmp_path: Path) -> AsyncIterator[Litestar]:
    """The application, started."""
    from rso_http_upload.receiver import HttpUpload, HttpUploadConfig  # noqa: PLC0415

    from rso.plugins import ReceiverContext  # noqa: PLC0415
    from rso.testing.spool import RecordingSpool  # noqa: PLC0415

    spool = RecordingSpool()
    context = ReceiverContext(spool=spool, identify=lambda _: None, sources=list, data_dir=tmp_path)
    made = create_app(engine, spool, [HttpUpload(HttpUploadConfig(), context)])
    made.state.kept = spool
    ready, over = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        # One task from its start to its end: a fixture's two halves may run in different ones.
        async with made.lifespan():
            ready.set()
            await over.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve())
        await ready.wait()
        yield made
        over.set()


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[AsyncClient]:
    """Asks the application in the test's own loop, to which the connections of asyncpg belong."""
    transport = ASGITransport(
        app=app,  # type: ignore[arg-type]
        raise_app_exceptions=False,
        client=("198.51.100.7", 50000),  # no neighbour, who may read the metrics
    )
    async with AsyncClient(transport=transport, base_url="http://rso.example") as made:
        yield made


def routes(app: Litestar) -> Iterator[tuple[str, str]]:
    """Method and path of every route of our own."""
    for route in app.routes:
        # A live stream has no end; what it says is tested in test_live.py.
        if route.path.startswith(("/static", "/upload-static", "/schema", "/events")):
            continue
        for method in getattr(route, "methods", ()):
            if method not in {"OPTIONS", "HEAD"}:
                yield method, str(route.path_format)


def aimed(path: str, south: South) -> Iterator[str]:
    """The path with the other facility's keys in it; with each action where it has one."""
    for action in ACTIONS[path] if "{action}" in path else ("",):
        values = {**south.values, "action": action}
        if path.startswith("/admin/users") or "/admin/{kind}" in path:
            values["kind"] = "users"
        yield path.format(**values) if "{" in path else path


REASON = {"reason": "x"}
# What every write of the API is sent (None: a file); one that is missing here fails the test.
BODIES: dict[str, Any] = {
    "POST /api/exams": {"facility": "SOUTH", "patient_name": "X^Y"},
    "PATCH /api/exams/{number}": {"patient_name": "X^Y", "priority": "urgent", "history": "x"},
    "POST /api/exams/{number}/documents": None,
    "DELETE /api/exams/{number}/documents/{document}": {},
    "POST /api/exams/{number}/owner/{action}": {"to": "technician@north.example"},
    "POST /api/exams/{number}/cancel": REASON,
    "POST /api/exams/{number}/close": REASON,
    "POST /api/exams/{number}/complete": {"expected": 1},
    "POST /api/active": {"search": SECRET, "facility": "SOUTH"},
    "POST /api/bans/lift": {"address": "192.0.2.9"},
    "POST /api/notifications/{message}/retry": {},
    "POST /api/matters/{matter}/acknowledge": {},
    "POST /api/me/contacts": {"channel": "email", "address": "x@north.example"},
    "POST /api/me/contacts/{contact}/confirm": {"code": "000000"},
    "PUT /api/me/contacts/{contact}": {"quiet": "22:00-07:00"},
    "DELETE /api/me/contacts/{contact}": {},
    "DELETE /api/me/sessions": {},
    "DELETE /api/me/sessions/{session}": {},
    "POST /api/site/tokens": {"source": "SOUTH", "name": "x"},
    "DELETE /api/site/tokens/{token_id}": {},
    "POST /api/views": {"name": "x", "filters": {"facility": "SOUTH"}},
    "PATCH /api/views": {"first": ""},
    "DELETE /api/views/{key}": {},
    "POST /api/exams/{number}/notes": {"note": "x"},
    "POST /api/exams/{number}/notifications": {
        "people": {f"{SECRET.lower()}@south.example": ["email"]}, "note": "x"},
    "POST /api/exams/{number}/deliveries/{destination}/{action}": {},
    "POST /api/exams/{number}/uploads": {"instances": ["1.2.3"], "complete": True},
    "PATCH /api/exams/{number}/uploads/{uid}": {},
    "POST /api/exams/{number}/studies": {},
    "POST /api/holds/{hold_id}/{action}": {"reason": "x", "exam": "NUMBER"},
    "POST /api/destinations/{code}/test": {},
    "POST /api/destinations/{code}/{action}": {},
    "PUT /api/site": {"facility": [{"code": "SOUTH", "name": "taken"}]},
    "POST /api/purge": {"exams": 0},
    "PUT /api/users/{email}": {"role": "technician", "facilities": ["NORTH"]},
    "POST /api/users/{email}/{action}": {},
    "POST /api/tokens": {"name": "x"},
    "DELETE /api/tokens/{token_id}": {},
}  # fmt: skip


async def state(ledger: Ledger) -> str:
    """Everything of the other facility."""
    found = {}
    for table in WATCHED:
        rows = await ledger.fetch(f"SELECT * FROM {table} ORDER BY 1")
        found[table] = [
            row for row in rows if "SOUTH" in str(row) and "north.example" not in str(row)
        ]
    return str(found)


@pytest.mark.parametrize("role", [*ROLES, "nobody"])
async def test_another_facility_is_out_of_reach(
    app: Litestar, client: AsyncClient, engine: Engine, south: South, role: str
) -> None:
    """By session and by token, with the other's keys in every place."""
    ledger = engine.ledger
    before = await state(ledger)
    session = token = csrf = ""
    email = f"{role}@north.example"
    if role != "nobody":
        person = Person(email=email, name="", role=role, facilities=("NORTH",))
        session = await create_session(ledger, person)
        found = await find_session(ledger, session)
        assert found is not None
        csrf = found.csrf
        token = await create_token(ledger, email=email)
    asked = 0
    for method, path in routes(app):
        if path == "/sign-out":
            continue
        for url in aimed(path, south):
            for by_token in (False, True):
                headers = {"Accept": "text/html"}
                if by_token and token:
                    headers["Authorization"] = f"Bearer {token}"
                elif session:
                    headers |= {"Cookie": f"rso_session={session}", "X-CSRF-Token": csrf}
                more: dict[str, Any] = {}
                if method != "GET":
                    if path.startswith("/api") and BODIES[f"{method} {path}"] is None:
                        more = {"files": {"documents": ("x.pdf", b"%PDF-1.7", "application/pdf")}}
                    elif path.startswith("/api"):
                        text = json.dumps(BODIES[f"{method} {path}"])
                        text = text.replace("NUMBER", south.number)
                        more = {"content": text}
                        headers["Content-Type"] = "application/json"
                    else:
                        more = {"data": {
                            "_csrf": csrf, "facility": "SOUTH", "family": "X", "indication": "x",
                            "reason": "x", "decision": "release", "exam": south.number,
                            "code": "SOUTH", "email": f"{SECRET.lower()}@south.example",
                            "do": "pause", "search": SECRET, "actor": SECRET, "to": "me",
                        }}  # fmt: skip
                answer = await client.request(
                    method, url, headers=headers, follow_redirects=False, **more
                )
                asked += 1
                assert answer.status_code < 500, (method, url, answer.text[:300])
                # What one typed oneself comes back in a form; nothing else does.
                shown = answer.text.lower()
                for typed in (f"{SECRET}@south.example", f"{SECRET}-pacs", SECRET):
                    shown = shown.replace(f'value="{typed.lower()}"', "")
                shown = shown.replace(f"“{SECRET.lower()}”", "")
                assert SECRET.lower() not in shown, (role, method, url)
                if role == "nobody" and method != "GET":
                    assert answer.status_code in {400, 401, 403, 404, 405, 413, 415}, (method, url)
    assert asked > 100
    assert await state(ledger) == before
    assert not app.state.kept.kept
    assert {batch.facility for batch in app.state.kept.batches} <= {"NORTH"}
    assert await audit.verify(ledger) is None


@pytest.mark.parametrize(
    ("role", "facilities", "seen"),
    [("coordinator", ("NORTH",), 1), ("coordinator", ("SOUTH",), 1), ("admin", None, 3),
     ("auditor", ("NORTH",), 1), ("auditor", None, 3), ("technician", ("NORTH",), -1),
     ("customer", ("NORTH",), -1)],
)  # fmt: skip
async def test_refusals_are_shown_to_those_whom_they_concern(
    client: AsyncClient, engine: Engine, south: South, role: str,
    facilities: tuple[str, ...] | None, seen: int,
) -> None:  # fmt: skip
    """A coordinator or auditor sees the refusals of the own facility, who sees all those of strangers too."""
    email = f"{role}-{(facilities or ('all',))[0]}@example.org"
    await upsert_user(engine.ledger, email=email, role=role, facilities=facilities or ())
    token = await create_token(engine.ledger, email=email)
    bans = engine.settings.data_dir / "receivers" / "dicom_scp" / "bans"
    Bans(bans, after=1).failed("192.0.2.9", "NOBODY")
    answer = await client.get("/refusals", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == (200 if seen >= 0 else 403)
    assert answer.text.count("it came from 10.9.9.9") == max(seen, 0)
    assert (SECRET in answer.text) == (seen >= 0 and facilities != ("NORTH",))
    # A ban belongs to no facility, and an administrator alone lifts it.
    assert ("192.0.2.9" in answer.text) == (facilities is None)
    assert ("Lift" in answer.text) == (role == "admin")


HANDED_OUT = {
    "/exams/{number}/images.zip", "/exams/{number}/thumbnails/{instance}",
    "/holds/{hold_id}/thumbnails/{instance}", "/exams/{number}/documents/{document}",
    "/api/exams/{number}/documents/{document}",
}  # fmt: skip


@pytest.mark.parametrize("role", [*ROLES, "admin"])
async def test_an_auditor_is_handed_no_image_or_document(
    app: Litestar, client: AsyncClient, engine: Engine, south: South, role: str
) -> None:
    """By no address, of an exam whose page is shown; and the page has no link to any."""
    found = {path for method, path in routes(app) if method == "GET" and
             re.search(r"/(images\.zip|thumbnails/.*|documents/.*)$", path)}  # fmt: skip
    assert found == HANDED_OUT
    email = f"{role}@south.example"
    facilities = () if role == "admin" else ("SOUTH",)
    await upsert_user(engine.ledger, email=email, role=role, facilities=facilities)
    token = await create_token(engine.ledger, email=email)
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
    for path in sorted(found):
        answer = await client.get(path.format(**south.values), headers=headers)
        if role == "auditor":
            assert answer.status_code == 403, path
        else:  # the exam has no images
            assert answer.status_code == (200 if "document" in path else 404), path
    page = await client.get(f"/exams/{south.number}", headers=headers)
    assert page.status_code == 200
    assert f"{SECRET}.pdf" in page.text
    assert (f'href="/exams/{south.number}/documents/' in page.text) == (role != "auditor")
