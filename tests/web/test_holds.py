"""Holds as pages: evidence in words, two people who choose the same, undo, and word of changes."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.app import create_app
from rso.core.exam import Exam, Patient
from rso.core.matching import IncomingStudy
from rso.core.transport import Kind
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.engine.matcher import match_study
from rso.ledger import new_id, tables
from rso.ledger.exams import now
from rso.ledger.people import Person
from rso.ledger.sessions import create_session, find_session
from rso.ledger.site import load_site
from rso.ledger.studies import upsert_studies

pytestmark = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
EVIL = "<script>alert(1)</script>"


@pytest.fixture
async def client(clinics: Engine) -> AsyncIterator[AsyncTestClient[Litestar]]:
    """The application, in this process."""
    async with AsyncTestClient(create_app(clinics, None, [])) as made:
        yield made


async def person(engine: Engine, email: str, role: str = "coordinator") -> dict[str, str]:
    """Headers of somebody's session."""
    if role == "coordinator":
        await engine.ledger.execute(
            "UPDATE user_account SET role = 'coordinator', facilities = '[]' WHERE email = ?", email
        )
    who = Person(email=email, name="", role=role, facilities=None)
    secret = await create_session(engine.ledger, who)
    found = await find_session(engine.ledger, secret)
    assert found is not None
    return {"Cookie": f"rso_session={secret}", "X-CSRF-Token": found.csrf, "Accept": "text/html"}


async def exam_of(engine: Engine, **who: str) -> Exam:
    """An exam of NORTH."""
    return await create_exam(engine, facility="NORTH", patient=Patient(**who), actor="me")


async def held(engine: Engine, patient: Patient) -> str:
    """The key of the hold that a Study of this patient ends in."""
    study = IncomingStudy(study_instance_uid="1.2", patient=patient, kind=Kind.TECHNICIAN)
    rows = await upsert_studies(engine.ledger, "NORTH", [(study, EVIL)])
    async with engine.ledger.transaction():
        await match_study(engine, next(iter(rows.values())))
    return str((await engine.ledger.fetch("SELECT id FROM hold WHERE state = 'open'"))[0]["id"])


async def test_two_people_choose_the_same(
    clinics: Engine, client: AsyncTestClient[Litestar]
) -> None:
    """Another exam, or another identity, is no second word; neither is saying it twice."""
    first = await exam_of(clinics, name="A^B", birth_date="19700131")
    other = await exam_of(clinics, name="C^D", birth_date="19700131")
    hold = await held(clinics, Patient(name=EVIL, birth_date="19811231", patient_id=first.number))
    one = await person(clinics, "lead@example.org")
    two = await person(clinics, "other@north.example")
    url = f"/holds/{hold}"
    page = (await client.get(url, headers=one)).text
    assert "the number of the patient before was typed" in page
    assert "two people must release it" in page
    assert EVIL not in page

    async def release(headers: dict[str, str], exam: Exam, identity: str = "exam") -> int:
        reason = f"because of {EVIL}"
        form = {"decision": "release", "exam": exam.number, "identity": identity, "reason": reason}
        answer = await client.post(url, headers=headers, data=form, follow_redirects=False)
        return answer.status_code

    assert await release(one, first) == 422
    assert await release(one, first) == 422
    assert await release(two, other) == 422
    assert await release(one, first) == 422
    assert await release(two, first, "images") == 422
    assert await release(one, first) == 422
    asked = (await client.get(url, headers=two)).text
    assert "lead@example.org has asked" in asked
    assert "Reason: <q>because of &lt;script&gt;" in asked
    assert EVIL not in asked
    said = await clinics.ledger.fetch(
        "SELECT facts FROM audit WHERE action = 'hold release asked' ORDER BY id DESC LIMIT 1"
    )
    facts = msgspec.json.decode(said[0]["facts"])
    assert facts == {"hold": hold, "reason": f"because of {EVIL}", "identity": "exam"}
    assert "the second is awaited" in (await client.get("/holds/rows", headers=two)).text
    seen = (await client.get(url, headers=two)).text.split("seen=")[1].split('"')[0]
    assert (await client.get(f"{url}/changed?seen={seen}", headers=two)).status_code == 204
    assert await release(two, first) == 303
    word = await client.get(f"{url}/changed?seen={seen}", headers=one)
    assert "released by other@north.example" in word.text
    # Taken back: it waits again, with an alarm.
    form = {"decision": "recall", "reason": "wrong"}
    gone = await client.post(url, headers=one, data=form, follow_redirects=False)
    back = await client.get(gone.headers["location"], headers=one)
    assert "nothing had been sent" in back.text
    assert "recalled" in back.text
    assert "1 with an alarm" in back.text


async def test_each_reason_says_that_it_is_kept(
    clinics: Engine, client: AsyncTestClient[Litestar]
) -> None:
    """At the field, and tied to it: deciding, taking back on either page, cancelling."""
    exam = await exam_of(clinics, name="DOE^JANE")
    hold = await held(clinics, Patient(name="ROE^MARY", patient_id=exam.number))
    headers = await person(clinics, "lead@example.org")

    async def fields(url: str) -> list[str]:
        text = (await client.get(url, headers=headers)).text
        found = re.findall(
            r'<input id="([^"]+)" name="reason"[^>]* aria-describedby="([^" ]+)', text
        )
        assert len(found) == text.count('name="reason"')
        for field, hint in found:
            kept = "Kept in the audit for good: no patient&#39;s name."
            assert f'id="{hint}">{kept}' in text.replace("patient's", "patient&#39;s")
            assert hint == f"{field}-kept"
        return [field for field, _ in found]

    assert await fields(f"/holds/{hold}") == ["reason"]
    form = {"decision": "release", "exam": exam.number, "reason": "hers"}
    await client.post(f"/holds/{hold}", headers=headers, data=form, follow_redirects=False)
    assert await fields(f"/holds/{hold}") == ["reason"]
    assert await fields(f"/exams/{exam.number}") == [f"why-{hold}", "cancel-why"]


async def test_a_wrong_decision_is_told_in_words(
    clinics: Engine, client: AsyncTestClient[Litestar]
) -> None:
    """No reason, no exam, no such exam: the page says so and keeps what was typed."""
    exam = await exam_of(clinics, name="DOE^JANE", birth_date="19700131")
    hold = await held(clinics, Patient(name="DOE^JANE", birth_date="19700131"))
    headers = await person(clinics, "lead@example.org")
    for form, words in (
        ({"decision": "release", "exam": exam.number}, "Please give a reason."),
        ({"decision": "release", "reason": "because"}, "Choose the exam."),
        ({"decision": "release", "reason": "because", "other": "ZZZZ"}, "ZZZZ"),
        ({"reason": "because"}, "Choose what to do."),
    ):
        answer = await client.post(f"/holds/{hold}", headers=headers, data=form)
        assert answer.status_code == 422
        assert words in answer.text
        if "reason" in form:
            assert 'value="because"' in answer.text
    technician = await person(clinics, "tech@north.example", "technician")
    form = {"decision": "reject", "reason": "x"}
    assert (await client.post(f"/holds/{hold}", headers=technician, data=form)).status_code == 403
    done = await client.post(f"/holds/{hold}", headers=headers, data=form, follow_redirects=False)
    assert done.status_code == 303
    assert "Nothing waits" in (await client.get("/holds", headers=headers)).text


async def test_who_recalls_reads_whom_to_call(
    clinics: Engine, client: AsyncTestClient[Litestar]
) -> None:
    """No message reaches anybody, so the page says no such thing; others are not shown who."""
    options = {"ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    await load_site(clinics.ledger, {
        "facility": [{"code": "NORTH", "radiologists": [{"code": "READER"}]}],
        "radiologist": [{"code": "READER", "destinations": [
            {"code": "R-PACS", "sender": "dicom_scu", "options": options}]}],
    })  # fmt: skip
    exam = await exam_of(clinics, name="DOE^JANE")
    hold = await held(clinics, Patient(name="ROE^MARY", patient_id=exam.number))
    study = (await clinics.ledger.fetch("SELECT id FROM study"))[0]["id"]
    await clinics.ledger.insert_rows(tables.Instance, [{
        "id": new_id(), "facility": "NORTH", "study": study, "sop_instance_uid": "1.3",
        "sop_class_uid": "1.2", "series_instance_uid": "1.2", "transfer_syntax_uid": "1.2",
        "digest": "", "size": 1, "batch": new_id(), "received_at": now(),
    }])  # fmt: skip
    headers = await person(clinics, "lead@example.org")
    form = {"decision": "release", "exam": exam.number, "reason": "hers"}
    await client.post(f"/holds/{hold}", headers=headers, data=form, follow_redirects=False)
    await clinics.ledger.execute("UPDATE delivery_item SET state = 'acknowledged'")
    form = {"decision": "recall", "reason": "not hers"}
    gone = await client.post(f"/holds/{hold}", headers=headers, data=form, follow_redirects=False)
    for url in (gone.headers["location"], f"/holds/{hold}"):
        text = (await client.get(url, headers=headers)).text
        assert "Nobody could be told: call READER." in text
    assert (
        "1 image was sent already"
        in (await client.get(gone.headers["location"], headers=headers)).text
    )
    technician = await person(clinics, "tech@north.example", "technician")
    assert "READER" not in (await client.get(gone.headers["location"], headers=technician)).text


@pytest.mark.parametrize("role", ["technician", "customer", "auditor", "coordinator"])
async def test_deciding_is_offered_to_those_who_can(
    clinics: Engine, client: AsyncTestClient[Litestar], role: str
) -> None:
    """Everybody else may look."""
    await held(clinics, Patient(name="DOE^JANE"))
    email = "lead@example.org" if role == "coordinator" else "tech@north.example"
    await clinics.ledger.execute(
        "UPDATE user_account SET role = ? WHERE email = 'tech@north.example'",
        "technician" if role == "coordinator" else role,
    )
    headers = await person(clinics, email, role)
    for url in ("/holds", "/holds/rows"):
        text = (await client.get(url, headers=headers)).text
        assert (">Look and decide</a>" in text) == (role == "coordinator")
        assert (">Look</a>" in text) == (role != "coordinator")


async def test_candidates_over_the_api(clinics: Engine, client: AsyncTestClient[Litestar]) -> None:
    """Both identities as they are, with what agrees and whether two must decide; bound, and audited."""
    wrong = await exam_of(clinics, name="A^B", birth_date="19700131", sex="M")
    hold = await held(
        clinics, Patient(name="ROE^R", birth_date="19811231", sex="M", patient_id=wrong.number)
    )
    lead = await person(clinics, "lead@example.org")
    url = f"/api/holds/{hold}/candidates"
    answer = await client.get(url, headers=lead)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    received = {name: found["received"][name] for name in ("patient_name", "birth_date", "kind")}
    assert received == {"patient_name": "ROE^R", "birth_date": "19811231", "kind": "technician"}
    assert "the number of the patient before" in found["what"] + found["advice"]
    assert (found["received"]["series"], found["received"]["more_series"]) == ([], 0)
    (candidate,) = found["candidates"]
    assert (candidate["exam_number"], candidate["patient_name"]) == (wrong.number, "A^B")
    assert candidate["agreement"] == {"name": "differs", "birth_date": "differs", "sex": "equal"}
    assert (candidate["two_people"], candidate["day_month_swapped"]) == (True, False)
    secret = await create_session(
        clinics.ledger,
        Person(email="tech@south.example", name="", role="technician", facilities=("SOUTH",)),
    )
    stranger = {"Cookie": f"rso_session={secret}"}
    assert (await client.get(url, headers=stranger)).status_code == 409
    seen = await clinics.ledger.fetch("SELECT actor FROM audit WHERE action = 'hold opened'")
    assert [row["actor"] for row in seen] == ["lead@example.org"]


async def test_a_hold_of_very_many_series_is_shown_in_part(
    clinics: Engine, client: AsyncTestClient[Litestar]
) -> None:
    """Sixty on its page, two hundred by the API; both say how many there are besides."""
    hold = await held(clinics, Patient(name="DOE^JANE"))
    (row,) = await clinics.ledger.fetch("SELECT study FROM hold")
    await clinics.ledger.insert_rows(tables.Instance, [
        {"id": new_id(), "facility": "NORTH", "study": row["study"], "sop_instance_uid": f"1.{n}",
         "sop_class_uid": "1", "series_instance_uid": f"1.2.{n}", "transfer_syntax_uid": "1.2",
         "digest": str(n), "size": 10, "series_number": str(n), "instance_number": "1",
         "batch": new_id(), "received_at": now(), "conflict": False}
        for n in range(205)
    ])  # fmt: skip
    headers = await person(clinics, "lead@example.org")
    text = (await client.get(f"/holds/{hold}", headers=headers)).text
    assert text.count("/thumbnails/") == 60
    assert "145 more Series are not shown" in text
    answer = await client.get(f"/api/holds/{hold}/candidates", headers=headers)
    received = answer.json()["received"]
    assert (len(received["series"]), received["more_series"]) == (200, 5)
    assert len({series["middle"] for series in received["series"]}) == 200


async def test_a_flood_of_holds_is_shown_in_part(
    clinics: Engine, client: AsyncTestClient[Litestar]
) -> None:
    """Page and API begin with the alarm that came last and count all; the API goes to the end."""
    await held(clinics, Patient(name="DOE^JANE"))
    (row,) = await clinics.ledger.fetch("SELECT * FROM hold")
    begun = now()
    await clinics.ledger.insert_rows(
        tables.Hold,
        [
            {**row, "id": new_id(), "reason": f"flood {n}", "alarm": n == 501,
             "opened_at": begun + timedelta(seconds=n)}
            for n in range(502)
        ],
    )  # fmt: skip
    headers = await person(clinics, "lead@example.org")
    text = (await client.get("/holds/rows", headers=headers)).text
    assert "503 wait for a person" in text
    assert "1 with an alarm" in text
    assert "303 more follow" in text
    assert text.count('id="hold-') == 200
    assert text.index("flood 501<") < text.index("flood 0<")
    answer = (await client.get("/api/holds", headers=headers)).json()
    assert (len(answer["holds"]), answer["more"]) == (500, 3)
    reasons = [hold["reason"] for hold in answer["holds"]]
    assert reasons == ["flood 501", row["reason"], *(f"flood {n}" for n in range(498))]
    url = f"/api/holds?cursor={answer['next']}"
    rest = (await client.get(f"{url}&limit=2", headers=headers)).json()
    assert ([h["reason"] for h in rest["holds"]], rest["more"]) == (["flood 498", "flood 499"], 1)
    rest = (await client.get(url, headers=headers)).json()
    assert [h["reason"] for h in rest["holds"]] == ["flood 498", "flood 499", "flood 500"]
    assert (rest["more"], rest["next"]) == (0, None)
    for wrong in ("x", "2_1_" + new_id(), "1_1_x", "1_"):
        bad = await client.get(f"/api/holds?cursor={wrong}", headers=headers)
        assert bad.status_code == 400, wrong
