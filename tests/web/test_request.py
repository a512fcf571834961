"""Requests in this process: what is refused, unknown patients, drafts, edits, the API's fields."""

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.core.exam import Exam, Patient
from rso.core.names import read_name
from rso.engine.context import Engine
from rso.engine.documents import MOST_BYTES, MOST_DOCUMENTS, document_path
from rso.engine.exams import create_exam, find_exam
from rso.engine.notes import exam_notes
from rso.engine.requests import FIELDS, duplicates_of, read_request, request_of, unknown_name
from rso.ledger import Ledger
from rso.ledger.drafts import find_draft, save_draft
from rso.ledger.exams import now
from rso.ledger.people import Person
from rso.ledger.sessions import create_session, find_session

pytestmark = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
ME = "tech@north.example"
PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 20


@pytest.fixture
async def client(clinics: Engine) -> AsyncIterator[AsyncTestClient[Litestar]]:
    """The application, in this process."""
    async with AsyncTestClient(create_app(clinics, None, [])) as made:
        yield made


@pytest.fixture
async def headers(clinics: Engine) -> dict[str, str]:
    """A technician's session."""
    return await entered(
        clinics, Person(email=ME, name="", role="technician", facilities=("NORTH",))
    )


async def entered(clinics: Engine, person: Person) -> dict[str, str]:
    """Somebody's session, as headers."""
    secret = await create_session(clinics.ledger, person)
    found = await find_session(clinics.ledger, secret)
    assert found is not None
    return {"Cookie": f"rso_session={secret}", "X-CSRF-Token": found.csrf, "Accept": "text/html"}


@pytest.fixture
async def exam(clinics: Engine) -> Exam:
    """An exam of NORTH with an ideographic group and a suffix."""
    patient = Patient(name="Yamada^Tarou^^^Jr=山田^太郎", birth_date="19700131", patient_id="P1")
    return await create_exam(clinics, facility="NORTH", patient=patient, actor=ME)


def filled(**more: str) -> dict[str, str]:
    """A form that would do."""
    return {"facility": "NORTH", "family": "DOE", "indication": "pain", **more}


async def test_only_documents_are_taken(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str], exam: Exam
) -> None:
    """The content decides; nothing is kept of what is refused; a removed one is gone."""
    for data in (b"MZ\x90", b"<html><script>x</script>", b"%!PS", b"", PNG + bytes(MOST_BYTES)):
        answer = await client.post(
            "/exams/new", headers=headers, data=filled(),
            files={"documents": ("<b>report.pdf", data, "application/pdf")},
        )  # fmt: skip
        assert answer.status_code == 422
        assert "&lt;b&gt;report.pdf: a document" in answer.text
    many = [("documents", (f"{n}.png", PNG, "image/png")) for n in range(MOST_DOCUMENTS + 1)]
    answer = await client.post("/exams/new", headers=headers, data=filled(), files=many)
    assert answer.status_code == 422
    assert "at most 20 documents" in answer.text
    assert await clinics.ledger.fetch("SELECT number FROM exam") == [{"number": exam.number}]
    assert await clinics.ledger.fetch("SELECT id FROM exam_document") == []
    url = f"/exams/{exam.number}/documents"
    await client.post(
        url, headers=headers, files={"documents": ("x\r\ny\u202e.png", PNG, "text/html")}
    )
    row = (await clinics.ledger.fetch("SELECT * FROM exam_document"))[0]
    assert (row["name"], row["media_type"]) == ("xy.png", "image/png")
    got = await client.get(f"{url}/{row['id']}", headers=headers)
    assert got.content == PNG
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''xy.png"
    await client.post(f"{url}/{row['id']}/remove", headers=headers)
    assert not document_path(clinics, str(row["id"])).exists()
    assert (await client.get(f"{url}/{row['id']}", headers=headers)).status_code == 404


async def test_an_exam_takes_the_documents_that_it_can(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str], exam: Exam
) -> None:
    """Each that is refused is named on the exam's page; the others are kept."""
    sent = [("documents", ("one.png", PNG, "image/png")), ("documents", ("<i>.doc", b"MZ", "x/y")),
            ("documents", ("two.png", PNG + b"2", "image/png"))]  # fmt: skip
    url = f"/exams/{exam.number}"
    answer = await client.post(f"{url}/documents", headers=headers, files=sent)
    assert answer.status_code == 422
    assert "&lt;i&gt;.doc: a document is a PDF" in answer.text
    rows = await clinics.ledger.fetch("SELECT name FROM exam_document ORDER BY id")
    assert [row["name"] for row in rows] == ["one.png", "two.png"]
    many = [("documents", (f"{n}.png", PNG, "image/png")) for n in range(MOST_DOCUMENTS)]
    answer = await client.post(f"{url}/documents", headers=headers, files=many)
    assert answer.status_code == 422
    assert answer.text.count("an exam has at most 20 documents.") == 2
    assert len(await clinics.ledger.fetch("SELECT id FROM exam_document")) == MOST_DOCUMENTS


@pytest.mark.parametrize(
    ("action", "form", "status", "said"),
    [
        ("complete", {"expected": "1e3"}, 400, "at most 6 digits"),
        ("complete", {"expected": "1234567"}, 400, "at most 6 digits"),
        ("close", {}, 409, "an exam that is requested cannot become closed"),
    ],
)
async def test_an_exam_that_cannot_end_says_why(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str], exam: Exam,
    action: str, form: dict[str, str], status: int, said: str,
) -> None:  # fmt: skip
    """The exam's page again, with the reason and what was typed; nothing is changed."""
    before = await clinics.ledger.fetch("SELECT * FROM exam")
    if action == "close":
        lead = Person(email="lead@example.org", name="", role="coordinator", facilities=None)
        headers = await entered(clinics, lead)
    answer = await client.post(f"/exams/{exam.number}/{action}", headers=headers, data=form)
    assert answer.status_code == status
    assert said in answer.text
    assert "End of the exam" in answer.text
    assert f'value="{form.get("expected", "")}"' in answer.text
    assert await clinics.ledger.fetch("SELECT * FROM exam") == before


async def test_a_coordinator_closes(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str], exam: Exam
) -> None:
    """By the page as by the API, and nobody else sees the button."""
    await clinics.ledger.execute("UPDATE exam SET status = 'settled'")
    path = f"/exams/{exam.number}"
    lead = await entered(
        clinics, Person(email="lead@example.org", name="", role="coordinator", facilities=None)
    )
    api = {**headers, "Accept": "application/json"}
    assert f"{path}/close" not in (await client.get(path, headers=headers)).text
    assert (await client.post(f"{path}/close", headers=headers)).status_code == 403
    assert (
        await client.post(f"/api{path}/close", headers=api, json={"reason": "x"})
    ).status_code == 403
    assert (await find_exam(clinics.ledger, exam.number)).status.value == "settled"
    assert f"{path}/close" in (await client.get(path, headers=lead)).text
    done = await client.post(f"{path}/close", headers=lead, follow_redirects=False)
    assert done.status_code == 303
    assert (await find_exam(clinics.ledger, exam.number)).status.value == "closed"


async def test_more_than_is_taken_at_once(
    client: AsyncTestClient[Litestar], headers: dict[str, str], exam: Exam
) -> None:
    """The page says what to do."""
    answer = await client.post(
        f"/exams/{exam.number}/notes", headers={**headers, "accept": "text/html"},
        data={"note": "x" * (11 << 20)},
    )  # fmt: skip
    assert answer.status_code == 413
    assert "send it in parts" in answer.text


async def test_a_patient_nobody_knows(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str]
) -> None:
    """The made name differs each time and is no name to matching; it goes when one is known."""
    names = {unknown_name("F") for _ in range(20)}
    assert len(names) > 15
    assert all(read_name(name) == (None, None, None) for name in names)
    form = {"facility": "NORTH", "unknown": "1", "indication": "found", "sex": "M"}
    made = await client.post("/exams/new", headers=headers, data=form, follow_redirects=False)
    number = made.headers["location"].split("/")[2]
    exam = await find_exam(clinics.ledger, number)
    assert exam.patient.name.startswith("UNKNOWN^JOHN DOE ")
    assert exam.flags == ("unknown patient",)
    await client.post(f"/exams/{number}/edit", headers=headers, data=filled(given="JANE"))
    exam = await find_exam(clinics.ledger, number)
    assert (exam.patient.name, exam.flags) == ("DOE^JANE", ())


async def test_an_edit_keeps_what_it_does_not_show(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str], exam: Exam
) -> None:
    """Suffix, other scripts and notes stay; the audit names fields and no values."""
    url = f"/exams/{exam.number}/edit"
    await client.post(f"/exams/{exam.number}/notes", headers=headers, data={"note": "hello"})
    form = filled(family="Yamada", given="Tarou", birth_date="1970-01-31", patient_id="P1",
                  history="SECRETHISTORY")  # fmt: skip
    await client.post(url, headers=headers, data=form)
    assert (await find_exam(clinics.ledger, exam.number)).patient.name == exam.patient.name
    await client.post(url, headers=headers, data=form | {"given": "Jirou"})
    changed = await find_exam(clinics.ledger, exam.number)
    assert changed.patient.name == "Yamada^Jirou^^^Jr=山田^太郎"
    said = await request_of(clinics.ledger, exam)
    assert said["history"] == "SECRETHISTORY"
    assert [note["note"] for note in await exam_notes(clinics.ledger, exam)] == ["hello"]
    told = str(await clinics.ledger.fetch("SELECT facts FROM audit WHERE action = 'exam edited'"))
    assert "history" in told
    assert "SECRET" not in told
    assert "Jirou" not in told
    assert (await client.post(url, headers=headers, data={"family": ""})).status_code == 422


async def test_a_draft_is_ones_own_and_ends(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str]
) -> None:
    """Of one's facility only, only fields of the form, for a week, until the exam is made."""
    ledger: Ledger = clinics.ledger
    answer = await client.post(
        "/exams/new/draft", headers=headers, data=filled(_csrf="x", hostile="y", note="n")
    )
    assert answer.json() == {"kept": True}
    draft = await find_draft(ledger, ME, ["NORTH"])
    assert draft is not None
    assert draft.form == filled(note="n")
    assert await find_draft(ledger, "other@north.example", ["NORTH"]) is None
    assert await find_draft(ledger, ME, ["SOUTH"]) is None
    other = await client.post("/exams/new/draft", headers=headers, data=filled(facility="SOUTH"))
    assert other.json() == {"kept": False}
    await ledger.execute("UPDATE request_draft SET saved_at = ?", now() - timedelta(days=8))
    assert await find_draft(ledger, ME, ["NORTH"]) is None
    assert not await save_draft(ledger, ME, {"indication": "x" * 50_000})
    await client.post("/exams/new/draft", headers=headers, data=filled())
    await client.post("/exams/new", headers=headers, data=filled(), follow_redirects=False)
    assert await ledger.fetch("SELECT account FROM request_draft") == []


async def test_the_same_patient_again(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str], exam: Exam
) -> None:
    """By ID, or by name and birth date, at the same facility, while the exam is open."""
    ledger = clinics.ledger

    async def found(facility: str = "NORTH", **who: str) -> list[str]:
        return [e.number for e in await duplicates_of(ledger, facility, Patient(**who), 30)]

    assert await found(patient_id="P1") == [exam.number]
    assert await found(name="YAMADA^TAROU^^^JR", birth_date="19700131") == [exam.number]
    assert await found(name="YAMADA^TAROU", birth_date="19700201") == []
    assert await found(name="YAMADA^TAROU") == []
    assert await found("SOUTH", patient_id="P1") == []
    asked = await client.post("/exams/new", headers=headers, data=filled(patient_id="P1"))
    assert asked.status_code == 422
    assert f'value="{exam.number} "' in asked.text
    sure = filled(patient_id="P1", seen_duplicates=exam.number)
    made = await client.post("/exams/new", headers=headers, data=sure, follow_redirects=False)
    assert made.status_code == 303
    body = {
        "facility": "NORTH",
        "patient_name": "X^Y",
        "patient_id": "P1",
        "check_duplicates": True,
    }
    assert (await client.post("/api/exams", headers=headers, json=body)).status_code == 409
    await ledger.execute("UPDATE exam SET status = 'closed'")
    assert await found(patient_id="P1") == []


async def test_the_api_takes_every_field(
    clinics: Engine, client: AsyncTestClient[Litestar], headers: dict[str, str]
) -> None:
    """What the form asks for, JSON may say; an unknown patient needs no name."""
    body = {field.name: field.name for field in FIELDS} | {"study_date": "2026-03-01"}
    more = {"facility": "NORTH", "unknown_patient": True, "sex": "F", "priority": "stat"}
    answer = await client.post("/api/exams", headers=headers, json=body | more)
    assert answer.status_code == 201, answer.text
    exam = await find_exam(clinics.ledger, answer.json()["exam_number"])
    assert exam.patient.name.startswith("UNKNOWN^JANE DOE")
    assert await request_of(clinics.ledger, exam) == body
    nobody = await client.post("/api/exams", headers=headers, json={"facility": "NORTH"})
    assert nobody.status_code == 400
    assert read_request({"indication": "x", "family": "A^B=C"}).patient.name == "A B C"
    assert msgspec.json.encode(body)
