"""The request form as a browser sends it: what it shows is what it keeps, and nothing is cut."""

from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from msgspec import structs

from rso.core.exam import Exam, ExamStatus, Patient
from rso.engine.context import Engine
from rso.engine.exams import create_exam, find_exam
from rso.engine.notes import exam_notes
from rso.engine.requests import MOST, iso_day, request_of
from rso.ledger.drafts import find_draft
from rso.ledger.site import load_site

Client = AsyncTestClient[Litestar]
SAID = {
    "pregnancy": "12 weeks", "study_date": "20260301", "laterality": "left knee",
    "history": "fell\r\ntwice", "indication": "pain",
}  # fmt: skip
CAME = {
    "patient_name": "", "birth_date": "1970013X", "sex": "U", "modality": "PX",
    "accession_number": "A" * 40, "origin": "images",
}  # fmt: skip


class Sent(HTMLParser):
    """What a browser sends of a page's form when nobody touches it."""

    def __init__(self, text: str) -> None:
        """Read it."""
        super().__init__()
        self.form: dict[str, str] = {}
        self.limits: dict[str, int] = {}
        self._name = ""
        self._off = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Fields with their values; a choice that none is chosen of sends the first."""
        said = {name: value or "" for name, value in attrs}
        name, value = said.get("name", ""), said.get("value", "")
        if tag == "fieldset":
            self._off = "disabled" in said
        if self._off:
            return
        if "maxlength" in said:
            self.limits[name] = int(said["maxlength"])
        if tag in {"select", "textarea"}:
            self._name = name
        if tag == "textarea":
            self.form[name] = ""
        if tag == "option" and ("selected" in said or self._name not in self.form):
            self.form[self._name] = value
        if tag == "input" and said["type"] not in {"checkbox", "file"}:
            real = said["type"] != "date" or value == iso_day(value)
            self.form[name] = value if real else ""

    def handle_data(self, data: str) -> None:
        """The text of a text area, its lines ended as on the wire."""
        if self.lasttag == "textarea" and self._name:
            self.form[self._name] += data.replace("\r\n", "\n").replace("\n", "\r\n")

    def handle_endtag(self, tag: str) -> None:
        """What follows is of no field."""
        if tag in {"select", "textarea"}:
            self._name = ""


@pytest.fixture
def engine(web: Client) -> Engine:
    """Of the application."""
    found: Engine = web.app.state.engine
    return found


@pytest.fixture
async def exam(engine: Engine) -> Exam:
    """An exam whose request came by the API of before."""
    patient = Patient(name="DOE^JANE", birth_date="19700131", patient_id="P1")
    return await create_exam(
        engine, facility="NORTH", patient=patient, actor="c", request=SAID, modality="IO"
    )


@pytest.mark.parametrize("columns", [{}, CAME])
async def test_an_edit_keeps_what_nobody_touched(
    web: Client, enter: Any, engine: Engine, exam: Exam, columns: dict[str, str]
) -> None:
    """Whatever stands there: values the form has no choice for, days that are none, no name."""
    for name, value in columns.items():
        await engine.ledger.execute(f"UPDATE exam SET {name} = ?", value)
    me, path = await enter(web, "coordinator"), f"/exams/{exam.number}/edit"
    before = await find_exam(engine.ledger, exam.number)
    form = Sent((await web.get(path, headers=me)).text).form
    assert form["study_date"] == "2026-03-01"
    form["callback"] = "555"
    saved = await web.post(path, headers=me, data=form, follow_redirects=False)
    assert saved.status_code == 303, saved.text
    assert await find_exam(engine.ledger, exam.number) == before
    assert await request_of(engine.ledger, exam) == SAID | {"callback": "555"}
    rows = await engine.ledger.fetch("SELECT facts FROM audit WHERE action = 'exam edited'")
    assert [msgspec.json.decode(row["facts"])["fields"] for row in rows] == ["callback"]


async def test_a_name_that_was_there_is_not_taken_away(
    web: Client, enter: Any, engine: Engine, exam: Exam
) -> None:
    """Only who came without one stays so; a day that is none cannot be typed anew either."""
    me, path = await enter(web, "coordinator"), f"/exams/{exam.number}/edit"
    form = Sent((await web.get(path, headers=me)).text).form
    answer = await web.post(path, headers=me, data=form | {"family": "", "birth_date": "soon"})
    assert answer.status_code == 422
    assert "Enter the family name" in answer.text
    assert "Enter a real day." in answer.text
    assert (await find_exam(engine.ledger, exam.number)).patient == exam.patient


@pytest.mark.parametrize("edit", [False, True])
async def test_what_is_too_long_is_said_at_its_field(
    web: Client, enter: Any, engine: Engine, exam: Exam, edit: bool
) -> None:
    """Nothing is stored without its end, and every field tells the browser how much it takes."""
    me = await enter(web, "coordinator")
    path = f"/exams/{exam.number}/edit" if edit else "/exams/new"
    page = Sent((await web.get(path, headers=me)).text)
    typed = {"laterality", "modality", "pregnancy", "study_date"}  # chosen, not written
    limits = {name: most for name, most in MOST.items() if name not in typed}
    assert page.limits.items() >= {n: m for n, m in limits.items() if n in page.form}.items()
    form = page.form | {"facility": "NORTH", "family": "DOE", "indication": "pain"}
    before = await engine.ledger.fetch("SELECT * FROM exam")
    for name, most in limits.items():
        if name not in page.form:
            continue
        answer = await web.post(path, headers=me, data=form | {name: "x" * (most + 1)})
        assert answer.status_code == 422, name
        assert f'id="{name}-problem">At most {most} characters' in answer.text
    assert await engine.ledger.fetch("SELECT * FROM exam") == before


async def test_the_end_of_a_line_is_one_character(
    web: Client, enter: Any, engine: Engine, exam: Exam
) -> None:
    """What the browser let somebody type is kept whole, in the request and in a note."""
    me, url = await enter(web, "coordinator"), f"/exams/{exam.number}"
    form = Sent((await web.get(f"{url}/edit", headers=me)).text).form
    lines = "\n".join(["x" * 99] * 20)
    form["priors"] = lines.replace("\n", "\r\n")
    await web.post(f"{url}/edit", headers=me, data=form)
    await web.post(f"{url}/notes", headers=me, data={"note": lines.replace("\n", "\r\n")})
    said = await request_of(engine.ledger, exam)
    assert said["priors"] == lines
    assert [note["note"] for note in await exam_notes(engine.ledger, exam)] == [lines]
    answer = await web.post(f"{url}/notes", headers=me, data={"note": "x" * 2001})
    assert answer.status_code == 400
    assert len(await exam_notes(engine.ledger, exam)) == 1


async def test_a_draft_keeps_who_is_to_be_told(make_web: Any, enter: Any) -> None:
    """The boxes are ticked when somebody comes back to it, so that nobody is forgotten."""
    web: Client = await make_web(
        '[plugins.http_upload]\n[plugins.email]\nurl = "mailto://127.0.0.1:1?from=rso@example.org"\n'
    )
    contact = {"channel": "email", "address": "tech@example.org"}
    tech = {"email": "tech@example.org", "role": "technician", "facilities": ["NORTH"]}
    await load_site(web.app.state.engine.ledger, {"user": [{**tech, "contacts": [contact]}]})
    me, box = await enter(web, "technician"), "notify:tech@example.org:email"
    form = {"facility": "NORTH", "family": "DOE", box: "on", "hostile:box": "on"}
    kept = await web.post("/exams/new/draft", headers=me, data=form)
    assert kept.json() == {"kept": True}
    draft = await find_draft(web.app.state.engine.ledger, "tech@example.org", None)
    assert draft is not None
    assert draft.form == {"facility": "NORTH", "family": "DOE", box: "on"}
    assert f'name="{box}" checked' in (await web.get("/exams/new", headers=me)).text


async def test_the_patient_of_an_exam_that_ended_is_not_asked_for(
    web: Client, enter: Any, engine: Engine, exam: Exam
) -> None:
    """The rest of the request may be corrected; who had the page open reads why not the patient."""
    me, path = await enter(web, "coordinator"), f"/exams/{exam.number}/edit"
    form = Sent((await web.get(path, headers=me)).text).form
    await engine.ledger.execute("UPDATE exam SET status = 'closed'")
    late = await web.post(path, headers=me, data=form | {"middle": "M", "callback": "555"})
    assert late.status_code == 409
    assert "The exam is closed: its patient is not changed any more" in late.text
    ended = structs.replace(exam, status=ExamStatus.CLOSED)
    assert await find_exam(engine.ledger, exam.number) == ended
    form = Sent(late.text).form
    assert (form["callback"], "family" in form) == ("555", False)
    saved = await web.post(path, headers=me, data=form, follow_redirects=False)
    assert saved.status_code == 303, saved.text
    assert await find_exam(engine.ledger, exam.number) == ended
    assert (await request_of(engine.ledger, exam))["callback"] == "555"
    told = await web.patch(
        f"/api/exams/{exam.number}", headers=me | {"Accept": "application/json"}, json={"sex": "F"}
    )
    assert (told.status_code, told.json()["detail"]) == (
        409, "the exam is closed: its patient is not changed any more",
    )  # fmt: skip
