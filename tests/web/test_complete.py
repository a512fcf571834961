"""How many images an exam has, as people and programs say it: shown, and refused where it ended."""

from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.core.exam import Exam, Patient
from rso.core.matching import IncomingStudy
from rso.core.transport import Kind
from rso.engine.context import Engine
from rso.engine.exams import create_exam, find_exam
from rso.ledger import new_id, tables
from rso.ledger.exams import now
from rso.ledger.rejected import LATE, mark_rejected
from rso.ledger.studies import upsert_studies

Client = AsyncTestClient[Litestar]
JSON = {"Accept": "application/json"}


@pytest.fixture
def engine(web: Client) -> Engine:
    """Of the application."""
    found: Engine = web.app.state.engine
    return found


@pytest.fixture
async def exam(engine: Engine) -> Exam:
    """Requested."""
    return await create_exam(engine, facility="NORTH", patient=Patient(name="X"), actor="t")


async def test_the_page_says_how_many_of_how_many(
    web: Client, enter: Any, engine: Engine, exam: Exam
) -> None:
    """A wrong number is seen by whoever looks, and put right with another."""
    me, path = await enter(web, "technician"), f"/exams/{exam.number}"
    early = await web.post(f"{path}/complete", headers=me, data={"expected": ""})
    assert early.status_code == 409
    assert "the exam has no images yet: say how many there will be" in early.text
    wrong = await web.post(
        f"{path}/complete", headers=me, data={"expected": "6000"}, follow_redirects=False
    )
    assert wrong.status_code == 303
    page = (await web.get(path, headers=me)).text
    assert 'Images <span class="count">0 of 6000</span>' in page
    assert "6000 of the 6000 that were said to be all are not here." in page
    await engine.ledger.execute("UPDATE exam SET instances = 601")
    await web.post(f"{path}/complete", headers=me, data={"expected": "600"})
    page = (await web.get(path, headers=me)).text
    assert "More are here than the 600 that were said to be all." in page
    view = (await web.get(f"/api{path}", headers=me | JSON)).json()
    assert (view["instances"], view["expected_instances"]) == (601, 600)


async def test_an_exam_that_ended_takes_no_number(
    web: Client, enter: Any, engine: Engine, exam: Exam
) -> None:
    """Not by its page, which offers nothing, not by the API; an upload of before ends well."""
    me, path = await enter(web, "technician"), f"/exams/{exam.number}"
    assert f"{path}/complete" in (await web.get(path, headers=me)).text
    await engine.ledger.execute("UPDATE exam SET status = 'closed'")
    assert f"{path}/complete" not in (await web.get(path, headers=me)).text
    late = await web.post(f"{path}/complete", headers=me, data={"expected": "3"})
    assert late.status_code == 409
    assert "the exam is closed: it is not completed any more" in late.text
    told = await web.post(f"/api{path}/complete", headers=me | JSON, json={"expected": 3})
    assert told.status_code == 409
    sent = {"instances": ["1.2.3"], "complete": True}
    answer = await web.post(f"/api{path}/uploads", headers=me | JSON, json=sent)
    assert (answer.status_code, answer.json()["total"]) == (200, 1)
    assert (await find_exam(engine.ledger, exam.number)).expected_instances is None


async def test_an_upload_of_nothing_completes_nothing(
    web: Client, enter: Any, engine: Engine, exam: Exam
) -> None:
    """What comes later would settle with its first image."""
    me, url = await enter(web, "technician"), f"/api/exams/{exam.number}/uploads"
    empty = await web.post(url, headers=me | JSON, json={"instances": [], "complete": True})
    assert empty.status_code == 200
    assert (await find_exam(engine.ledger, exam.number)).expected_instances is None
    sent = {"instances": ["1.2.3", "1.2.4"], "complete": True}
    assert (await web.post(url, headers=me | JSON, json=sent)).status_code == 200
    assert (await find_exam(engine.ledger, exam.number)).expected_instances == 2


async def test_what_was_rejected_may_come_again(
    web: Client, enter: Any, engine: Engine, exam: Exam
) -> None:
    """It is no part of what is kept, nor of how many there are: who sends it is asked for it."""
    me, url = await enter(web, "technician"), f"/api/exams/{exam.number}/uploads"
    ledger, keys = engine.ledger, [new_id(), new_id()]
    study = IncomingStudy(
        study_instance_uid="1.2", patient=Patient(name="X"), kind=Kind.TECHNICIAN,
        bound_exam_number=exam.number,
    )  # fmt: skip
    rows = await upsert_studies(ledger, "NORTH", [(study, "")])
    key = next(iter(rows.values()))["id"]
    await ledger.insert_rows(tables.Instance, [
        {"id": one, "facility": "NORTH", "study": key, "sop_instance_uid": f"1.2.{n}",
         "sop_class_uid": "1", "series_instance_uid": "1.9", "digest": one, "size": 9,
         "transfer_syntax_uid": "1.2.840.10008.1.2", "batch": new_id(), "received_at": now()}
        for n, one in enumerate(keys, 1)
    ])  # fmt: skip
    sent = {"instances": ["1.2.1", "1.2.2"], "complete": True}

    async def kept() -> list[str]:
        answer = await web.post(url, headers=me | JSON, json=sent)
        found: list[str] = answer.json()["kept"]
        return found

    assert await kept() == ["1.2.1", "1.2.2"]
    await mark_rejected(ledger, keys[:1], reason=LATE, actor="a", resolution="r", at=now())
    assert await kept() == ["1.2.2"]
    await ledger.execute("UPDATE study SET state = 'rejected'")
    assert await kept() == []
    sent["instances"] = ["1.2.3"]
    assert await kept() == []
    assert (await find_exam(ledger, exam.number)).expected_instances == 1
