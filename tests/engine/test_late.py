"""Images that come for an exam that is closed: a release to it opens it again."""

from typing import Any

import pytest
from msgspec import structs

from rso.core.errors import MatchingError
from rso.core.exam import Patient
from rso.engine.exams import close_exam, create_exam
from rso.engine.holds import reject_hold, release_hold
from rso.ledger import audit
from rso.ledger.holds import find_holds


async def closed(clinic: Any) -> str:
    """The exam's one image is delivered, and it was closed; the key of its Study."""
    study = str(await clinic.arrive(1))
    await clinic.send()
    assert await clinic.settle() == "delivered"
    await close_exam(clinic.engine, clinic.exam, actor="t")
    return study


@pytest.mark.parametrize(
    "more", [{}, {"accession_number": "A7"}, {"study_instance_uid": "1.3"}], ids=["same", "part", "study"]
)  # fmt: skip
async def test_a_release_to_its_own_exam(clinic: Any, more: dict[str, Any]) -> None:
    """Of the same Study, of a part with another order number, of another Study: it is sent."""
    await closed(clinic)
    late = await clinic.arrive(2, **more)
    hold = await clinic.hold(late)
    assert await clinic.send() == 0
    assert await release_hold(clinic.engine, hold, clinic.exam.number, reason="late", actor="a")
    assert (await clinic.now()).status == "receiving"
    assert await clinic.send() == 1
    assert await clinic.settle() == "delivered"
    assert await clinic.way() == ("delivered", 2, 2)
    rows = await clinic.ledger.fetch("SELECT actor, exam FROM audit WHERE action = 'exam reopened'")
    assert rows == [{"actor": "a", "exam": clinic.exam.number}]
    assert await audit.verify(clinic.ledger) is None


async def test_no_other_release_opens_it(clinic: Any) -> None:
    """A stranger's Study, and an exam that was cancelled, stay as they are."""
    await closed(clinic)
    stranger = structs.replace(clinic.jane, patient_id="P9")
    hold = await clinic.hold(await clinic.arrive(3, patient=stranger, study_instance_uid="1.4"))
    with pytest.raises(MatchingError, match="the exam is closed"):
        await release_hold(clinic.engine, hold, clinic.exam.number, reason="r", actor="a")
    late = await clinic.hold(await clinic.arrive(2))
    await clinic.ledger.execute("UPDATE exam SET status = 'cancelled'")
    with pytest.raises(MatchingError, match="the exam is cancelled"):
        await release_hold(clinic.engine, late, clinic.exam.number, reason="r", actor="a")
    other = await create_exam(clinic.engine, facility="NORTH", patient=Patient(), actor="t")
    await clinic.ledger.execute("UPDATE exam SET status = 'closed' WHERE id = ?", other.id)
    with pytest.raises(MatchingError, match="the exam is closed"):
        await release_hold(clinic.engine, late, other.number, reason="r", actor="a")


async def test_rejected_late_images_stay_behind(clinic: Any) -> None:
    """Others that come later are released: these leave with no such release."""
    study = await closed(clinic)
    await clinic.arrive(2)
    await reject_hold(clinic.engine, await clinic.hold(study), reason="not hers", actor="a")
    await clinic.arrive(3)
    hold = await clinic.hold(study)
    assert await release_hold(clinic.engine, hold, clinic.exam.number, reason="late", actor="a")
    assert await clinic.send() == 1
    assert await clinic.settle() == "delivered"
    assert await clinic.way() == ("delivered", 2, 2)
    rows = await clinic.ledger.fetch("SELECT instances FROM exam")
    assert [row["instances"] for row in rows] == [2]
    # Sent again it waits for a person, though the exam is open.
    await clinic.arrive(2)
    assert await clinic.send() == 0
    hold = await clinic.hold(study)
    assert await release_hold(clinic.engine, hold, clinic.exam.number, reason="hers", actor="a")
    assert await clinic.send() == 1
    assert await clinic.settle() == "delivered"
    assert await clinic.way() == ("delivered", 3, 3)


async def test_the_rest_of_its_study_is_asked_about(clinic: Any) -> None:
    """A part names somebody else, and the answer to that is none to the late image."""
    study = await closed(clinic)
    await clinic.arrive(2)
    late = await clinic.hold(study)
    marys = await clinic.arrive(3, patient=structs.replace(clinic.jane, name="ROE^MARY"))
    assert await clinic.state(study) == "stopped"
    await clinic.arrive(4)
    await reject_hold(clinic.engine, await clinic.hold(marys), reason="r", actor="a")
    assert await clinic.state(study) == "matched"
    assert await clinic.hold(study) == late
    assert await clinic.send() == 0
    assert (await clinic.now()).status == "closed"
    assert await release_hold(clinic.engine, late, clinic.exam.number, reason="r", actor="a")
    assert await clinic.send() == 2


async def test_an_open_late_hold_is_waited_for(clinic: Any) -> None:
    """The exam is open again by another Study's release, and a question was answered."""
    study = await closed(clinic)
    await clinic.arrive(2)
    late = await clinic.hold(study)
    other = await clinic.hold(await clinic.arrive(5, study_instance_uid="1.3"))
    assert await release_hold(clinic.engine, other, clinic.exam.number, reason="r", actor="a")
    assert await clinic.send() == 1
    marys = await clinic.arrive(3, patient=structs.replace(clinic.jane, name="ROE^MARY"))
    await reject_hold(clinic.engine, await clinic.hold(marys), reason="r", actor="a")
    assert await clinic.send() == 0
    assert await release_hold(clinic.engine, late, clinic.exam.number, reason="r", actor="a")
    assert await clinic.send() == 1


@pytest.mark.parametrize("end", ["closed", "cancelled"])
async def test_what_came_while_its_study_was_stopped(clinic: Any, end: str) -> None:
    """The exam has ended before the answer: a person is asked, and nothing is sent unasked."""
    study = await clinic.arrive(1)
    await clinic.send()
    marys = await clinic.arrive(3, patient=structs.replace(clinic.jane, name="ROE^MARY"))
    await clinic.ledger.execute("UPDATE exam SET status = ?", end)
    await clinic.arrive(2)
    await reject_hold(clinic.engine, await clinic.hold(marys), reason="r", actor="a")
    assert [h.reason for h in await find_holds(clinic.ledger)] == ["late"]
    assert await clinic.state(study) == "matched"
    assert await clinic.send() == 0
