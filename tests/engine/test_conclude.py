"""An exam is delivered as soon as nothing of it waits any more, whatever it had waited for."""

from typing import Any

import pytest
from msgspec import structs

from rso.core.errors import StateError
from rso.core.exam import ExamStatus, Patient
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import complete_exam
from rso.engine.holds import recall_hold, reject_hold, release_hold
from rso.engine.settle import settle_exams
from rso.ledger.exams import set_status
from rso.ledger.site import load_site

MARY = Patient(name="ROE^MARY", birth_date="19811231")


async def test_a_rejected_hold_was_the_last_that_an_exam_waited_for(clinic: Any) -> None:
    """Its reader left; what came after that goes nowhere, and a person says that it need not."""
    await clinic.arrive(1, 2)
    assert await clinic.send() == 2
    await load_site(clinic.ledger, {"facility": [{"code": "NORTH"}]})
    study = await clinic.arrive(3, study_instance_uid="1.3")
    assert await clinic.settle() == "settled"
    hold = await clinic.hold(study)
    await reject_hold(clinic.engine, hold, reason="a test of the scanner", actor="t")
    assert (await clinic.now()).status.value == "delivered"
    events = await clinic.ledger.fetch("SELECT id FROM outbox WHERE event = 'exam_delivered'")
    assert len(events) == 1


async def test_what_stays_after_a_recall_is_delivered(clinic: Any) -> None:
    """Only what was taken back had not left yet."""
    await clinic.arrive(1, 2)
    assert await clinic.send() == 2
    mary = structs.replace(MARY, patient_id=clinic.exam.number)
    hold = await clinic.hold(await clinic.arrive(3, patient=mary, study_instance_uid="1.3"))
    for actor in ("one", "two"):
        await release_hold(
            clinic.engine, hold, clinic.exam.number, reason="hers", actor=actor, identity="images"
        )
    assert await clinic.settle() == "settled"
    await recall_hold(clinic.engine, hold, reason="not hers", actor="one")
    assert await clinic.way() == ("delivered", 2, 2)
    assert (await clinic.now()).status.value == "delivered"


async def test_what_stays_after_an_edit_is_delivered(clinic: Any) -> None:
    """The exam has another birth date, and loses what had not left yet."""
    blank = structs.replace(clinic.jane, birth_date="")
    await clinic.arrive(1, 2, patient=blank)
    assert await clinic.send() == 2
    study = await clinic.arrive(3, study_instance_uid="1.3")
    assert await clinic.settle() == "settled"
    await edit_exam(clinic.engine, clinic.exam, actor="t", patient={"birth_date": "19800202"})
    assert await clinic.state(study) == "held"
    assert await clinic.way() == ("delivered", 2, 2)
    assert (await clinic.now()).status.value == "delivered"


@pytest.mark.parametrize("expected", [None, 0])
async def test_an_exam_without_images_is_not_complete(clinic: Any, expected: int | None) -> None:
    """Unless somebody says how many will come; then it settles with the last of them."""
    with pytest.raises(StateError, match="no images yet"):
        await complete_exam(clinic.engine, clinic.exam, actor="t", expected=expected)
    assert (await clinic.now()).expected_instances is None
    await complete_exam(clinic.engine, clinic.exam, actor="t", expected=3)
    await clinic.arrive(1, 2)
    assert await settle_exams(clinic.engine) == 0
    await clinic.arrive(3)
    assert await settle_exams(clinic.engine) == 1


@pytest.mark.parametrize("status", [ExamStatus.CLOSED, ExamStatus.CANCELLED])
async def test_an_exam_that_ended_is_not_completed(clinic: Any, status: ExamStatus) -> None:
    """Whatever number is given."""
    await set_status(clinic.ledger, clinic.exam.id, status)
    with pytest.raises(StateError, match=f"the exam is {status}"):
        await complete_exam(clinic.engine, clinic.exam, actor="t", expected=3)
    assert (await clinic.now()).expected_instances is None


@pytest.mark.parametrize("said", [0, 2])
async def test_a_part_of_an_exam_that_streams_is_not_told_as_delivered(
    clinic: Any, said: int
) -> None:
    """Completed too early, or by a version that took none for a number: quiet decides again."""
    await clinic.ledger.execute("UPDATE exam SET expected_instances = ?", said)
    await clinic.arrive(1, 2, 3)
    assert await settle_exams(clinic.engine) == 0
    await clinic.arrive(4)
    assert await clinic.send() == 4
    assert (await clinic.now()).status.value == "receiving"
    assert await clinic.settle() == "delivered"
