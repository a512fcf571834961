"""Exams over the JSON API as the pages have them: documents, owners, the request, pages."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.core.exam import Exam, Patient
from rso.engine.context import Engine
from rso.engine.documents import MOST_BYTES, MOST_DOCUMENTS, document_path
from rso.engine.exams import create_exam, find_exam
from rso.engine.notes import exam_notes
from rso.engine.owners import claim_exam, owner_of
from rso.engine.requests import FIELDS, request_of
from rso.ledger import new_id, tables
from rso.ledger.exams import now
from rso.ledger.people import upsert_user
from rso.ledger.tokens import create_token
from rso.web.api_exams import ExamChange, ExamRequest

pytestmark = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
ME, OTHER, LEAD = "tech@north.example", "other@north.example", "lead@example.org"
PNG, PDF = b"\x89PNG\r\n\x1a\n" + b"x" * 20, b"%PDF-1.7 one page"
Client = AsyncTestClient[Litestar]


@pytest.fixture
async def client(clinics: Engine) -> AsyncIterator[Client]:
    """The application, in this process."""
    async with AsyncTestClient(create_app(clinics, None, [])) as made:
        yield made


@pytest.fixture
async def exam(clinics: Engine) -> Exam:
    """An exam of NORTH."""
    patient = Patient(name="DOE^JANE", birth_date="19700131", patient_id="P1")
    return await create_exam(
        clinics, facility="NORTH", patient=patient, actor=ME, request={"indication": "pain"}
    )


async def bearer(engine: Engine, email: str = ME, role: str = "") -> dict[str, str]:
    """Headers of somebody's token; with a role of a person of NORTH made for it."""
    if role:
        await upsert_user(engine.ledger, email=email, role=role, facilities=("NORTH",))
    return {"Authorization": f"Bearer {await create_token(engine.ledger, email=email)}"}


def files(*found: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """As a form sends them."""
    return [("documents", (name, data, "application/octet-stream")) for name, data in found]


async def test_documents_are_added_listed_handed_out_and_taken_away(
    clinics: Engine, client: Client, exam: Exam
) -> None:
    """As the page does: by content, in the audit, the bytes gone with a removal."""
    me, url = await bearer(clinics), f"/api/exams/{exam.number}/documents"
    assert (await client.get(url, headers=me)).json() == {"documents": []}
    made = await client.post(url, headers=me, files=files(("a.pdf", PDF), ("ü.png", PNG)))
    assert made.status_code == 201, made.text
    first, second = made.json()["documents"]
    assert (first["name"], first["media_type"], first["size"]) == (
        "a.pdf", "application/pdf", len(PDF),
    )  # fmt: skip
    assert (second["name"], second["media_type"], second["created_by"]) == (
        "ü.png",
        "image/png",
        ME,
    )
    assert (await client.get(url, headers=me)).json() == made.json()
    got = await client.get(f"{url}/{second['id']}", headers=me)
    assert got.content == PNG
    assert got.headers["content-type"] == "image/png"
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%BC.png"
    assert (await client.delete(f"{url}/{second['id']}", headers=me)).status_code == 204
    assert not document_path(clinics, second["id"]).exists()
    for again in (client.get, client.delete):
        gone = await again(f"{url}/{second['id']}", headers=me)
        assert gone.status_code == 404
        assert gone.headers["content-type"].startswith("application/problem+json")
    told = await clinics.ledger.fetch(
        "SELECT action FROM audit WHERE exam = ? ORDER BY id", exam.number
    )
    assert [row["action"] for row in told][1:] == [
        "exam opened", "document added", "document added", "document downloaded",
        "document removed",
    ]  # fmt: skip


async def test_documents_that_are_none_are_refused_whole(
    clinics: Engine, client: Client, exam: Exam
) -> None:
    """One wrong file and none is kept; no files, or one too many, are refused as well."""
    me, url = await bearer(clinics), f"/api/exams/{exam.number}/documents"
    for data in (b"MZ\x90", b"<html>", PNG + bytes(MOST_BYTES)):
        answer = await client.post(url, headers=me, files=files(("a.pdf", PDF), ("b.pdf", data)))
        assert answer.status_code == 415
        assert answer.json()["detail"].startswith("b.pdf: a document")
    for more in ({"json": {}}, {"data": {"documents": "x"}}, {"content": b"\x00"}):
        assert (await client.post(url, headers=me, **more)).status_code == 400
    many = [(f"{i}.pdf", PDF) for i in range(MOST_DOCUMENTS - 1)]
    assert (await client.post(url, headers=me, files=files(*many))).status_code == 201
    two = await client.post(url, headers=me, files=files(("x.pdf", PDF), ("y.pdf", PDF)))
    assert two.status_code == 415
    rows = await clinics.ledger.fetch("SELECT id FROM exam_document")
    kept = [p for p in (clinics.settings.data_dir / "documents").glob("*/*") if p.is_file()]
    assert len(rows) == len(kept) == MOST_DOCUMENTS - 1


@pytest.mark.parametrize(
    ("role", "added", "removed"),
    [("customer", 201, 403), ("technician", 201, 204), ("auditor", 403, 403)],
)
async def test_who_may_do_what_with_documents(
    clinics: Engine, client: Client, exam: Exam, role: str, added: int, removed: int
) -> None:
    """As on the exam's page: customers read and add, technicians and coordinators remove too."""
    lead, who = await bearer(clinics, LEAD), await bearer(clinics, f"{role}@x.example", role)
    url = f"/api/exams/{exam.number}/documents"
    key = (await client.post(url, headers=lead, files=files(("a.pdf", PDF)))).json()
    key = key["documents"][0]["id"]
    read = await client.get(f"{url}/{key}", headers=who)
    assert (read.status_code, read.content == PDF) == (
        (403, False) if added == 403 else (200, True)
    )
    answer = await client.post(url, headers=who, files=files(("b.pdf", PDF)))
    assert answer.status_code == added
    assert (await client.delete(f"{url}/{key}", headers=who)).status_code == removed
    stranger = await bearer(clinics, "tech@south.example")
    for path in (url, f"{url}/{key}"):
        assert (await client.get(path, headers=stranger)).status_code == 404


async def test_claim_release_and_give(clinics: Engine, client: Client, exam: Exam) -> None:
    """The first has it; only a coordinator gives, or takes from others."""
    me, lead = await bearer(clinics), await bearer(clinics, LEAD)
    url = f"/api/exams/{exam.number}/owner"

    async def act(headers: dict[str, str], action: str, **body: str) -> tuple[int, Any]:
        answer = await client.post(f"{url}/{action}", headers=headers, json=body)
        said = answer.json()
        return answer.status_code, said.get("owner", said.get("detail"))

    assert (await client.get(url, headers=me)).json() == {
        "owner": "",
        "assignable": [{"email": e, "name": e} for e in (LEAD, OTHER, ME)],
    }
    assert await act(me, "claim") == (200, ME)
    status, detail = await act(await bearer(clinics, OTHER), "claim")
    assert (status, ME in detail) == (409, True)
    assert (await act(await bearer(clinics, OTHER), "release"))[0] == 409
    assert (await act(me, "give", to=OTHER))[0] == 403
    assert await act(lead, "give", to=OTHER) == (200, OTHER)
    assert (await act(lead, "give", to="tech@south.example"))[0] == 409
    assert await act(lead, "release") == (200, "")
    assert (await act(me, "steal"))[0] == 400
    customer = await bearer(clinics, "customer@x.example", "customer")
    assert (await act(customer, "claim"))[0] == 403
    assert (await act(await bearer(clinics, "tech@south.example"), "claim"))[0] == 404
    await claim_exam(clinics, exam, actor=ME)
    assert await owner_of(clinics.ledger, exam) == ME


async def test_every_field_of_a_request_is_changed(
    clinics: Engine, client: Client, exam: Exam
) -> None:
    """What the edit page takes, JSON may say; what is not said stays, and no value is audited."""
    me, url = await bearer(clinics), f"/api/exams/{exam.number}"
    said = {field.name: f"SECRET {field.name}"[: field.most] for field in FIELDS}
    said |= {"study_date": "2026-11-20"}
    assert {field.name for field in FIELDS} <= set(ExamChange.__struct_fields__)
    assert set(ExamChange.__struct_fields__) | {"exam_number"} == set(ExamRequest.__struct_fields__)
    more = {"priority": "stat", "modality": "ct", "body_part": "HEAD", "accession_number": "A1"}
    answer = await client.patch(url, headers=me, json=said | more)
    assert answer.status_code == 200, answer.text
    assert await request_of(clinics.ledger, exam) == said
    changed = await find_exam(clinics.ledger, exam.number)
    assert (changed.modality, changed.priority.value, changed.patient) == (
        "CT", "stat", exam.patient,
    )  # fmt: skip
    await client.patch(url, headers=me, json={"history": "", "sex": "F"})
    shown = (await client.get(f"{url}/request", headers=me)).json()
    assert shown == said | more | {
        "exam_number": exam.number, "patient_name": "DOE^JANE", "patient_id": "P1", "sex": "F",
        "birth_date": "19700131", "modality": "CT", "history": "",
    }  # fmt: skip
    told = str(await clinics.ledger.fetch("SELECT facts FROM audit WHERE action = 'exam edited'"))
    assert "referrer" in told
    assert "SECRET" not in told


@pytest.mark.parametrize(
    "body",
    [
        {"indication": " "},
        {"priority": "stat"},
        {"priority": "stat", "priority_reason": ""},
        {"study_date": "2026-13-01"},
        {"birth_date": "yesterday"},
        {"history": "x" * 4001},
        {"colour": "red"},
    ],
)
async def test_a_change_keeps_what_the_form_requires(
    clinics: Engine, client: Client, exam: Exam, body: dict[str, str]
) -> None:
    """An indication, a reason for STAT, real days, known fields; nothing is changed by halves."""
    url, me = f"/api/exams/{exam.number}", await bearer(clinics)
    answer = await client.patch(url, headers=me, json={"referrer": "Dr. Roe", **body})
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert await request_of(clinics.ledger, exam) == {"indication": "pain"}
    assert await find_exam(clinics.ledger, exam.number) == exam


@pytest.mark.parametrize("body", [{"birth_date": "31.01.1970"}, {"study_date": "yesterday"}])
async def test_a_day_that_is_none_makes_no_exam(
    clinics: Engine, client: Client, body: dict[str, str]
) -> None:
    """As with a change: the program is told, and no exam stands there without its day."""
    who = {"facility": "NORTH", "patient_name": "DOE^JANE"}
    answer = await client.post("/api/exams", headers=await bearer(clinics), json=who | body)
    assert answer.status_code == 400
    assert answer.json()["detail"] == f"{next(iter(body))} is no day"
    assert await clinics.ledger.fetch("SELECT number FROM exam") == []


async def test_an_exam_is_made_as_it_is_changed(clinics: Engine, client: Client) -> None:
    """Routes compare a modality in capitals; a Study date is written in one way, old ones too."""
    me = await bearer(clinics)
    body = {"facility": "NORTH", "patient_name": "DOE^JANE", "modality": "ct",
            "birth_date": "1970-01-31", "study_date": "20260301", "history": " a\r\nb "}  # fmt: skip
    number = (await client.post("/api/exams", headers=me, json=body)).json()["exam_number"]
    exam = await find_exam(clinics.ledger, number)
    assert (exam.modality, exam.patient.birth_date) == ("CT", "19700131")
    said = {"study_date": "2026-03-01", "history": "a\nb"}
    assert await request_of(clinics.ledger, exam) == said
    url = f"/api/exams/{number}"
    await client.patch(url, headers=me, json={"study_date": "2026.04.02"})
    assert (await request_of(clinics.ledger, exam))["study_date"] == "2026-04-02"
    await clinics.ledger.execute('UPDATE exam SET request = \'{"study_date": "20260301"}\'')
    shown = (await client.get(f"{url}/request", headers=me)).json()
    assert shown["study_date"] == "2026-03-01"


async def test_a_note_is_not_cut(clinics: Engine, client: Client, exam: Exam) -> None:
    """One that is too long is refused with its words there still, and nobody is told."""
    me, url = await bearer(clinics), f"/api/exams/{exam.number}/notifications"
    body = {"people": {ME: ["email"]}, "note": "x" * 2001}
    assert (await client.post(url, headers=me, json=body)).status_code == 400
    assert await clinics.ledger.fetch("SELECT id FROM outbox WHERE event = 'manual'") == []
    assert await exam_notes(clinics.ledger, exam) == []


async def test_changed_demographics_are_matched_again(
    clinics: Engine, client: Client, exam: Exam
) -> None:
    """Another birth date sends the Study that no longer agrees to a person."""
    study = new_id()
    blank = {"Varchar": "", "Boolean": False, "JSON": "{}", "SmallInt": 0, "UUID": None}
    row = {c._meta.name: blank.get(type(c).__name__) for c in tables.Study._meta.columns}
    row |= {
        "id": study, "facility": "NORTH", "study_instance_uid": "1.2.3", "exam": exam.id,
        "state": "matched", "table_row": 3, "patient_name": "DOE^JANE", "patient_id": exam.number,
        "birth_date": "19700131", "name_key": "doe jane", "kind": "technician",
        "created_at": now(), "updated_at": now(),
    }  # fmt: skip
    await clinics.ledger.insert_rows(tables.Study, [row])
    me, url = await bearer(clinics), f"/api/exams/{exam.number}"
    assert (await client.patch(url, headers=me, json={"indication": "cough"})).status_code == 200
    assert await clinics.ledger.fetch("SELECT id FROM hold") == []
    answer = await client.patch(url, headers=me, json={"birth_date": "1980-02-02"})
    assert answer.status_code == 200
    assert [s["study_instance_uid"] for s in answer.json()["studies"]] == []
    held = await clinics.ledger.fetch("SELECT study, state FROM hold")
    assert [(str(h["study"]), h["state"]) for h in held] == [(study, "open")]


async def test_pages_of_exams(clinics: Engine, client: Client) -> None:
    """Each exam once, either way, whatever is made meanwhile; a stranger's number is no cursor."""
    made = [
        await create_exam(clinics, facility=f, patient=Patient(name="A^B"), actor=ME)
        for f in ("NORTH", "NORTH", "SOUTH", "NORTH", "NORTH", "NORTH")
    ]
    me = await bearer(clinics)

    async def page(way: str = "next", **asked: Any) -> tuple[list[str], str | None]:
        answer = await client.get("/api/exams", headers=me, params=asked)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return [exam["exam_number"] for exam in found["exams"]], found[way]

    mine = [exam.number for exam in reversed(made) if exam.facility == "NORTH"]
    assert await page() == (mine, None)
    seen, cursor = await page(limit=2)
    assert cursor == mine[1]
    new = await create_exam(clinics, facility="NORTH", patient=Patient(name="A^B"), actor=ME)
    here = cursor
    while cursor:
        here = cursor
        more, cursor = await page(limit=2, cursor=cursor)
        seen += more
    assert seen == mine
    back, cursor = mine[4:], (await page("previous", limit=2, cursor=here))[1]
    while cursor:
        assert (await page("next", limit=2, cursor=cursor))[1] == cursor.removeprefix("-")
        more, cursor = await page("previous", limit=2, cursor=cursor)
        back = more + back
    assert back == [new.number, *mine]
    assert (await page("previous", limit=2))[1] is None
    assert await page("previous", limit=9, cursor=f"-{mine[0]}", status="cancelled") == ([], None)
    assert await page(limit=5, cursor="", status="requested", facility="SOUTH") == ([], None)
    cursors = [{"cursor": c} for c in (made[2].number, f"-{made[2].number}", "X", "-")]
    for wrong in (*cursors, {"limit": 0}, {"limit": 10_001}):
        assert (await client.get("/api/exams", headers=me, params=wrong)).status_code == 400
    lead = await bearer(clinics, LEAD)
    for limit in (-1, 0, 1001):
        assert (await client.get(f"/api/audit?limit={limit}", headers=lead)).status_code == 400
    schema = (await client.get("/schema/openapi.json")).json()
    asked = {p["name"]: p for p in schema["paths"]["/api/exams"]["get"]["parameters"]}
    assert {"limit", "cursor"} <= set(asked)
    assert "next" in asked["cursor"]["description"] + str(asked["cursor"])
    kinds = schema["paths"]["/api/exams/{number}/documents/{document}"]["get"]["responses"]["200"]
    assert set(kinds["content"]) == {"application/pdf", "image/png", "image/jpeg"}
    upload = schema["paths"]["/api/exams/{number}/documents"]["post"]["requestBody"]
    assert "multipart/form-data" in upload["content"]
