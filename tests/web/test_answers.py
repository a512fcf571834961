"""What a PACS answered, as pages say it."""

from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from rso.core.exam import Patient
from rso.core.matching import IncomingStudy
from rso.core.transport import Kind
from rso.engine.exams import create_exam
from rso.ledger import new_id, tables
from rso.ledger.deliveries import Answer, add_items, claim_items, complete_items, ensure_delivery
from rso.ledger.exams import now
from rso.ledger.studies import upsert_studies

ANSWERS = (("stopped", "C001", ""), ("pending", "A700", ""), ("stopped", "A900", "no such class"))


@pytest.fixture
async def number(web: AsyncTestClient[Litestar]) -> str:
    """An exam whose images were answered so, with a comment and without."""
    engine = web.app.state.engine
    ledger = engine.ledger
    exam = await create_exam(engine, facility="NORTH", patient=Patient(name="DOE"), actor="me")
    study = IncomingStudy(study_instance_uid="1.2", patient=Patient(name="DOE"),
                          kind=Kind.TECHNICIAN)  # fmt: skip
    rows = await upsert_studies(ledger, "NORTH", [(study, "Head")])
    key = next(iter(rows.values()))["id"]
    await ledger.execute("UPDATE study SET exam = ?, state = 'matched' WHERE id = ?", exam.id, key)
    ids = [new_id() for _ in ANSWERS]
    await ledger.insert_rows(tables.Instance, [
        {"id": one, "facility": "NORTH", "study": key, "sop_instance_uid": f"1.{n}",
         "sop_class_uid": "1", "series_instance_uid": "1.9", "digest": str(n), "size": 1000,
         "transfer_syntax_uid": "1.2.840.10008.1.2", "batch": new_id(), "received_at": now()}
        for n, one in enumerate(ids)
    ])  # fmt: skip
    delivery = await ensure_delivery(ledger, exam.id, "R-PACS", 2)
    await add_items(ledger, delivery, "R-PACS", ids, 2)
    claimed = await claim_items(ledger, "R-PACS", "w", limit=9, seconds=60)
    await complete_items(ledger, "w", [
        Answer(item=row["item"], delivery=row["delivery"], instance=row["instance"], state=state,
               code=code, reason=reason, attempts=1, next_at=now())
        for row, (state, code, reason) in zip(claimed, ANSWERS, strict=True)
    ])  # fmt: skip
    return exam.number


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("/exams/{}", "C001 cannot understand this image (stopped)"),
        ("/exams/{}", "A700 out of resources there (pending)"),
        ("/exams/{}", "A900 no such class (stopped)"),
        ("/exams/{}", "C001 cannot understand this image (stopped, a person must look)"),
        # Though one more is on its way still.
        ("/exams/{}", 'aria-label="Retry what was stopped: R-PACS"'),
        ("/exams/{}/instances", "not taken C001 cannot understand this image"),
        ("/exams/{}/instances", '<span class="problem">A700 out of resources there'),
        ("/deliveries", '<td data-label="Reason">cannot understand this image</td>'),
        ("/deliveries", '<td data-label="Reason">no such class</td>'),
    ],
)
async def test_a_code_stands_beside_words(
    web: AsyncTestClient[Litestar], enter: Any, number: str, page: str, said: str
) -> None:
    """Its PACS' own, or what the code means where none came."""
    answer = await web.get(page.format(number), headers=await enter(web, "coordinator"))
    assert said in answer.text
