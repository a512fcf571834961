"""What was rejected, or recalled, and comes again in several groups, or after its exam ended."""

from typing import Any

import pytest
from msgspec import structs

from rso.core.exam import Patient
from rso.engine.exams import close_exam, create_exam
from rso.engine.holds import recall_hold, reject_hold, release_hold
from rso.engine.intake import take_records
from rso.engine.router import retry_routing
from rso.ledger.exams import exam_by_id
from rso.ledger.holds import find_holds
from rso.ledger.site import load_site

FIRST, AGAIN, LAST = (f"01900000-0000-7000-8000-00000000000{n}" for n in "123")


def stray(clinic: Any) -> Patient:
    """JANE, with a Patient ID that nobody has."""
    return structs.replace(clinic.jane, patient_id="P9")


def mary(clinic: Any) -> Patient:
    """Somebody else, in JANE's Study."""
    return structs.replace(clinic.jane, name="ROE^MARY")


async def reject(clinic: Any, study: str) -> None:
    """A person says that it belongs nowhere."""
    await reject_hold(clinic.engine, await clinic.hold(study), reason="sent again", actor="a")


async def release(clinic: Any, study: str) -> str:
    """A person lets it join JANE's exam; the hold that ended so."""
    hold = await clinic.hold(study)
    assert await release_hold(clinic.engine, hold, clinic.exam.number, reason="r", actor="a")
    return str(hold)


async def sent(clinic: Any) -> list[tuple[str, str]]:
    """Image and batch of what was acknowledged, and not recalled."""
    rows = await clinic.ledger.fetch(
        "SELECT i.sop_instance_uid, i.batch FROM delivery_item d JOIN instance i"
        " ON i.id = d.instance WHERE d.state = 'acknowledged' ORDER BY i.sop_instance_uid"
    )
    return [(row["sop_instance_uid"], row["batch"]) for row in rows]


async def closed(clinic: Any, *images: int) -> str:
    """The exam was closed, delivered or not; the key of its Study."""
    study = str(await clinic.arrive(*images))
    await clinic.send()
    await clinic.settle()
    await close_exam(clinic.engine, clinic.exam, actor="t")
    return study


async def rewire(clinic: Any, *codes: str) -> None:
    """NORTH has these radiologists now, each with a destination; or none."""
    await load_site(clinic.ledger, {
        "facility": [{"code": "NORTH", "radiologists": [{"code": code} for code in codes]}],
        "radiologist": [{"code": code, "destinations": [
            {"code": f"{code}-PACS", "sender": "dicom_scu", "options": {
                "ae_title": "PACS", "host": "127.0.0.1", "port": 1}}]} for code in codes],
    })  # fmt: skip


async def test_a_correction_in_two_groups(clinic: Any) -> None:
    """The rest of the rejected content waits for its correction, and is not sent."""
    first = await clinic.arrive(1, 2, 3, patient=stray(clinic), batch=FIRST)
    await reject(clinic, first)
    await clinic.arrive(1, patient=stray(clinic), text="x", batch=AGAIN)
    await clinic.arrive(2, patient=stray(clinic), text="x", batch=AGAIN)
    assert [h.kind for h in await find_holds(clinic.ledger)] == ["study"]
    await release(clinic, first)
    assert await clinic.send() == 2
    assert await sent(clinic) == [("1.2.1", AGAIN), ("1.2.2", AGAIN)]
    rows = await clinic.ledger.fetch("SELECT instances FROM exam")
    assert [row["instances"] for row in rows] == [2]
    assert await clinic.settle() == "delivered"
    # The third, as it was, is not asked about again: it follows the decision on its Study.
    await clinic.arrive(3, patient=stray(clinic), batch=LAST)
    assert await clinic.send() == 1
    assert await clinic.way() == ("delivered", 3, 3)


async def test_one_image_of_a_rejected_study_is_matched(clinic: Any) -> None:
    """Of three that were rejected one comes again, and has an exam by now: one is sent."""
    marys = Patient(name="ROE^MARY", patient_id="M1", birth_date="19800101")
    first = await clinic.arrive(1, 2, 3, patient=marys, batch=FIRST)
    await reject(clinic, first)
    await create_exam(clinic.engine, facility="NORTH", patient=marys, actor="t")
    assert await clinic.arrive(1, patient=marys, batch=AGAIN) == first
    assert await clinic.state(first) == "matched"
    assert await clinic.send() == 1
    assert await sent(clinic) == [("1.2.1", AGAIN)]
    await clinic.arrive(2, patient=marys, batch=AGAIN)
    assert await clinic.send() == 1


async def test_other_content_that_was_rejected_too_comes_again(clinic: Any) -> None:
    """Another image of its Study came again before: of the two contents the one that came is sent."""
    first = await clinic.arrive(1, 2, patient=stray(clinic), batch=FIRST)
    await clinic.arrive(1, patient=stray(clinic), text="x", batch=FIRST)
    await reject(clinic, first)
    await clinic.arrive(2, patient=stray(clinic), batch=AGAIN)
    await clinic.arrive(1, patient=stray(clinic), text="x", batch=AGAIN)
    await release(clinic, first)
    assert await clinic.send() == 2
    assert await sent(clinic) == [("1.2.1", AGAIN), ("1.2.2", AGAIN)]


async def test_the_rest_comes_by_the_page_of_an_exam(clinic: Any) -> None:
    """It is of that exam, whatever becomes of what came again of its Study before."""
    first = await clinic.arrive(1, 2, patient=stray(clinic))
    await reject(clinic, first)
    await clinic.arrive(1, patient=stray(clinic))
    bound = await clinic.arrive(2, patient=stray(clinic), exam_number=clinic.exam.number)
    assert (await clinic.state(first), await clinic.state(bound)) == ("held", "matched")
    assert await clinic.send() == 1
    assert [uid for uid, _ in await sent(clinic)] == ["1.2.2"]


@pytest.mark.parametrize("more", [[], [2]], ids=["one", "two"])
async def test_part_of_a_recalled_and_rejected_study_is_released(
    clinic: Any, more: list[int]
) -> None:
    """What was sent, recalled and rejected leaves with no release of what came again of it."""
    first = await clinic.arrive(1, 2, 3, patient=stray(clinic), batch=FIRST)
    hold = await release(clinic, first)
    assert await clinic.send() == 3
    await recall_hold(clinic.engine, hold, reason="r", actor="a")
    await reject(clinic, first)
    for image in [1, *more]:
        await clinic.arrive(image, patient=stray(clinic), batch=AGAIN)
    await release(clinic, first)
    assert await clinic.send() == 1 + len(more)
    assert {batch for _, batch in await sent(clinic)} == {AGAIN}
    assert await clinic.settle() == "delivered"


async def test_recalled_images_come_again_one_by_one(clinic: Any) -> None:
    """Each is queued again where it was taken out, and the exam is not delivered without it."""
    first = await clinic.arrive(1, 2, patient=stray(clinic))
    hold = await release(clinic, first)
    await clinic.send()
    await recall_hold(clinic.engine, hold, reason="r", actor="a")
    await reject(clinic, first)
    for image in (1, 2):
        await clinic.arrive(image, patient=stray(clinic), exam_number=clinic.exam.number)
    assert await clinic.send() == 2
    assert await clinic.settle() == "delivered"
    assert await clinic.way() == ("delivered", 2, 2)


async def test_released_again_while_its_study_is_in_question(clinic: Any) -> None:
    """It was sent and recalled; with the answer it is sent again."""
    first = await clinic.arrive(1, patient=stray(clinic))
    hold = await release(clinic, first)
    await clinic.send()
    marys = await clinic.arrive(2, patient=mary(clinic))
    await recall_hold(clinic.engine, hold, reason="r", actor="a")
    await release(clinic, first)
    assert await clinic.state(first) == "stopped"
    await reject(clinic, marys)
    assert await clinic.state(first) == "matched"
    assert await clinic.send() == 1
    assert await clinic.settle() == "delivered"


async def test_a_destination_that_begins_while_late_images_wait(clinic: Any) -> None:
    """It gets what others of the Study were sent, and not what was rejected."""
    study = await closed(clinic, 1)
    await clinic.arrive(2)
    other = await clinic.arrive(5, study_instance_uid="1.3")
    await rewire(clinic, "Q")
    await release(clinic, other)
    await reject(clinic, study)
    rows = await clinic.ledger.fetch(
        "SELECT i.sop_instance_uid FROM delivery_item d JOIN instance i ON i.id = d.instance"
        " WHERE d.destination = 'Q-PACS' ORDER BY i.sop_instance_uid"
    )
    assert [row["sop_instance_uid"] for row in rows] == ["1.2.1", "1.2.5"]


async def test_a_rejected_late_image_is_read_once_more(clinic: Any) -> None:
    """The same record after a crash, before and after its file was lost: nothing is decided."""
    study = await closed(clinic, 1)
    other = await clinic.arrive(5, study_instance_uid="1.3")
    record = clinic.record(2)
    await take_records(clinic.engine, [record])
    await reject(clinic, study)
    await release(clinic, other)
    assert await clinic.send() == 1
    again = clinic.record(2)
    for _ in range(2):
        assert await take_records(clinic.engine, [again]) == 0
        assert await clinic.send() == 0
    late = await clinic.hold(study)
    clinic.engine.archive.remove(again.record_id)
    assert await take_records(clinic.engine, [again]) == 0
    assert clinic.engine.archive.path(again.record_id).exists()
    assert await clinic.send() == 0
    assert await clinic.hold(study) == late


async def test_what_had_no_destination_is_not_rejected_as_late(clinic: Any) -> None:
    """A person said no to the image that was late, and to no other of its Study."""
    await rewire(clinic)
    await clinic.arrive(1, 2)
    await clinic.settle()
    await close_exam(clinic.engine, clinic.exam, actor="t")
    await clinic.arrive(3)
    nowhere, late = await find_holds(clinic.ledger)
    assert late.reason == "late"
    await rewire(clinic, "R")
    assert await retry_routing(clinic.engine) == 0
    await reject_hold(clinic.engine, late.id, reason="r", actor="a")
    number = clinic.exam.number
    assert await release_hold(clinic.engine, nowhere.id, number, reason="r", actor="a")
    assert await clinic.send() == 2
    assert [uid for uid, _ in await sent(clinic)] == ["1.2.1", "1.2.2"]


async def test_what_had_no_destination_waits_for_the_late_answer(clinic: Any) -> None:
    """It was released first, and is sent when the late image of its Study was rejected."""
    await rewire(clinic)
    study = await clinic.arrive(1)
    await clinic.settle()
    await close_exam(clinic.engine, clinic.exam, actor="t")
    await clinic.arrive(3)
    nowhere, _ = await find_holds(clinic.ledger)
    await rewire(clinic, "R")
    number = clinic.exam.number
    assert await release_hold(clinic.engine, nowhere.id, number, reason="r", actor="a")
    assert await clinic.send() == 0
    late = await clinic.ledger.fetch(
        "SELECT id FROM hold WHERE study = ? AND state = 'open' AND reason = 'late'", study
    )
    await reject_hold(clinic.engine, late[0]["id"], reason="r", actor="a")
    assert await clinic.send() == 1
    assert await clinic.settle() == "delivered"


async def test_a_late_image_is_corrected(clinic: Any) -> None:
    """It was rejected: the other content takes its place, and a person is asked."""
    study = await closed(clinic, 1)
    await clinic.arrive(2)
    await reject(clinic, study)
    await clinic.arrive(2, text="x", batch=AGAIN)
    assert await clinic.send() == 0
    await release(clinic, study)
    assert await clinic.send() == 1
    assert (await sent(clinic))[1] == ("1.2.2", AGAIN)


async def test_other_content_comes_for_an_exam_that_ended(clinic: Any) -> None:
    """What was sent stays so; a person is told."""
    await closed(clinic, 1)
    await clinic.arrive(1, text="x")
    assert [h.reason for h in await find_holds(clinic.ledger)] == ["same instance, other content"]
    exam = await exam_by_id(clinic.ledger, clinic.exam.id)
    assert exam is not None
    assert exam.status == "closed"
