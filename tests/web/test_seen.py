"""Who saw what: every page and answer that shows an exam or a hold is in the audit."""

from collections.abc import AsyncIterator

import pytest
from httpx import ASGITransport, AsyncClient
from litestar import Litestar
from pyotp import TOTP

from rso.app import create_app
from rso.core.exam import Exam, Patient
from rso.core.matching import IncomingStudy
from rso.core.transport import Kind
from rso.engine import audit_sightings, timeline
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.engine.matcher import match_study
from rso.engine.timeline import timeline_of
from rso.ledger import audit, new_id
from rso.ledger.people import upsert_user
from rso.ledger.second_factor import begin_totp, confirm_totp
from rso.ledger.studies import upsert_studies
from rso.ledger.tokens import create_token

ME = "lead@example.org"


@pytest.fixture
async def exam(clinics: Engine) -> Exam:
    """An exam of NORTH."""
    return await create_exam(
        clinics, facility="NORTH", patient=Patient(name="DOE^JANE"), actor="customer"
    )


@pytest.fixture
async def hold(clinics: Engine, exam: Exam) -> str:
    """What came with the number of an exam, and another patient's name."""
    patient = Patient(name="ROE^RICHARD", birth_date="19811231", patient_id=exam.number)
    study = IncomingStudy(study_instance_uid="1.2", patient=patient, kind=Kind.TECHNICIAN)
    rows = await upsert_studies(clinics.ledger, "NORTH", [(study, "")])
    async with clinics.ledger.transaction():
        await match_study(clinics, next(iter(rows.values())))
    return str((await clinics.ledger.fetch("SELECT id FROM hold WHERE state = 'open'"))[0]["id"])


@pytest.fixture
async def app(clinics: Engine) -> Litestar:
    """The application, in the loop of the test, to which PostgreSQL's connections belong."""
    return create_app(clinics, None, [])


@pytest.fixture
async def lead(clinics: Engine, app: Litestar) -> AsyncIterator[AsyncClient]:
    """A coordinator's client."""
    headers = {"Authorization": f"Bearer {await create_token(clinics.ledger, email=ME)}"}
    transport = ASGITransport(app=app)  # type: ignore[arg-type]
    async with AsyncClient(
        transport=transport, base_url="http://rso.example", headers=headers
    ) as made:
        yield made


async def seen(engine: Engine) -> list[tuple[str, str, str]]:
    """Who saw something, what, and of which exam."""
    rows = await engine.ledger.fetch("SELECT actor, action, exam FROM audit ORDER BY id")
    return [
        (row["actor"], row["action"], row["exam"])
        for row in rows
        if row["action"] in audit.SIGHTINGS
    ]


@pytest.mark.parametrize(
    ("path", "action"),
    [("", "exam opened"), ("/live", "exam opened"), ("/instances", "exam opened"),
     ("/created", "exam opened"), ("/edit", "exam opened"), ("/worksheet", "worksheet opened"),
     ("/thumbnails/none", "exam opened"), ("api", "exam opened"), ("api/request", "exam opened"),
     ("api/documents", "exam opened")],
)  # fmt: skip
async def test_whoever_sees_an_exam_is_in_the_audit(
    clinics: Engine, exam: Exam, lead: AsyncClient, path: str, action: str
) -> None:
    """By page, by program, on paper; once in a quarter of an hour."""
    url = f"/exams/{exam.number}{path.removeprefix('api')}"
    for _ in range(2):
        await lead.get(f"/api{url}" if path.startswith("api") else url.replace("none", new_id()))
    assert await seen(clinics) == [(ME, action, exam.number)]
    assert await audit.verify(clinics.ledger) is None


@pytest.mark.parametrize("path", ["/holds/{}", "/api/holds/{}", "/holds/{}/thumbnails/none"])
async def test_whoever_sees_a_hold_is_in_the_audit(
    clinics: Engine, exam: Exam, hold: str, lead: AsyncClient, path: str
) -> None:
    """With the exam that it is about."""
    for _ in range(2):
        await lead.get(path.format(hold).replace("none", new_id()))
    assert await seen(clinics) == [(ME, "hold opened", exam.number)]
    (row,) = await clinics.ledger.fetch("SELECT facts FROM audit WHERE action = 'hold opened'")
    assert hold in row["facts"]


async def test_a_page_that_stays_open_is_seen_once(
    clinics: Engine, exam: Exam, lead: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refreshes and pictures say nothing, who comes back later is noted again."""
    times = [1000.0]
    monkeypatch.setattr(audit_sightings, "monotonic", lambda: times[0])
    url = f"/exams/{exam.number}"
    await lead.get(url)
    for minutes in (10, 20, 500):
        times[0] = 1000.0 + minutes * 60
        await lead.get(f"{url}/live", headers={"X-Unattended": "1"})
        await lead.get(url, headers={"X-Unattended": "1"})
        await lead.get(f"{url}/thumbnails/{new_id()}")
    assert len(await seen(clinics)) == 1
    await lead.get(url)
    assert len(await seen(clinics)) == 2


async def test_no_header_hides_a_look(clinics: Engine, exam: Exam, lead: AsyncClient) -> None:
    """What says that it asks by itself, without having been opened, is noted."""
    await lead.get(f"/exams/{exam.number}", headers={"X-Unattended": "1"})
    assert await seen(clinics) == [(ME, "exam opened", exam.number)]


async def test_what_may_not_be_seen_is_not_noted(
    clinics: Engine, app: Litestar, exam: Exam
) -> None:
    """Another facility's exam is not found; the list is no look at each exam."""
    token = await create_token(clinics.ledger, email="tech@south.example")
    headers = {"Authorization": f"Bearer {token}"}
    transport = ASGITransport(app=app)  # type: ignore[arg-type]
    async with AsyncClient(
        transport=transport, base_url="http://rso.example", headers=headers
    ) as south:
        assert (await south.get(f"/exams/{exam.number}")).status_code == 404
        assert (await south.get("/")).status_code == 200
        assert (await south.get("/api/exams")).status_code == 200
    assert await seen(clinics) == []


async def test_the_timeline_tells_what_happened(
    clinics: Engine, exam: Exam, lead: AsyncClient
) -> None:
    """Looks are in the audit alone, so that they push nothing off the exam's page."""
    await lead.get(f"/exams/{exam.number}")
    await lead.get(f"/exams/{exam.number}/worksheet")
    moments = (await timeline_of(clinics.ledger, exam, most=1)).moments
    assert [moment.what for moment in moments] == ["exam created"]


async def test_the_memory_is_bounded(clinics: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was noted longest ago is forgotten, and noted once more."""
    monkeypatch.setattr(audit_sightings, "_MOST", 2)
    made = audit_sightings.Sightings(clinics.ledger)
    for about in ("1", "2", "3"):
        await made.note(ME, "exam opened", about, facility="NORTH")
    assert [made.is_due(ME, "exam opened", about) for about in "123"] == [True, False, False]


async def test_a_wrong_code_is_in_the_audit(clinics: Engine, app: Litestar) -> None:
    """Whoever has the password alone: once, and once more when the account waits."""
    await upsert_user(clinics.ledger, email=ME, role="coordinator", password="a good password")
    secret = await begin_totp(clinics.ledger, ME)
    assert await confirm_totp(clinics.ledger, ME, TOTP(secret).now())
    transport = ASGITransport(app=app)  # type: ignore[arg-type]
    async with AsyncClient(transport=transport, base_url="http://rso.example") as client:
        form = {"email": ME, "password": "a good password"}
        page = (await client.post("/sign-in", data=form)).text
        ticket = page.split('name="ticket" value="')[1].split('"')[0]
        for _ in range(13):
            await client.post("/sign-in/code", data={"ticket": ticket, "code": "none"})
    rows = await clinics.ledger.fetch("SELECT action, facts FROM audit ORDER BY id")
    assert [row["action"] for row in rows] == ["second factor refused", "second factor locked"]
    assert all(ME in row["facts"] for row in rows)


async def test_an_exam_leads_to_its_audit(
    clinics: Engine, app: Litestar, exam: Exam, lead: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looked is there, and of this exam alone; who may not read it has no link to it."""
    url, link = f"/exams/{exam.number}", f'href="/audit?exam={exam.number}"'
    await audit.append(clinics.ledger, actor="somebody", action="another", exam="0123456789")
    shown = (await lead.get(url)).text
    assert shown.count(link) == 1
    assert "older one" not in shown
    found = (await lead.get(f"/audit?exam={exam.number}")).text
    assert "exam opened" in found
    assert "exam created" in found
    assert "somebody" not in found
    monkeypatch.setattr(timeline, "_MOST", 1)
    await audit.append(clinics.ledger, actor="c", action="x", facility="NORTH", exam=exam.number)
    shown = (await lead.get(url)).text
    assert "1 older one is not" in shown
    assert shown.count(link) == 2
    token = await create_token(clinics.ledger, email="tech@north.example")
    transport, headers = ASGITransport(app=app), {"Authorization": f"Bearer {token}"}  # type: ignore[arg-type]
    async with AsyncClient(
        transport=transport, base_url="http://rso.example", headers=headers
    ) as tech:
        shown = (await tech.get(url)).text
        assert "1 older one is not" in shown
        assert "/audit" not in shown
