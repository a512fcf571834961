"""Images that were corrected and sent again under the same UIDs, before or after a rejection."""

from typing import Any

import pytest
from msgspec import structs

from rso.engine.holds import recall_hold, reject_hold, release_hold
from rso.ledger import audit
from rso.ledger.holds import find_holds


def wrong(clinic: Any) -> Any:
    """JANE, with a Patient ID that nobody has."""
    return structs.replace(clinic.jane, patient_id="P9", birth_date="19000101")


async def reject(clinic: Any, study: str) -> None:
    """A person says that it belongs nowhere."""
    await reject_hold(clinic.engine, await clinic.hold(study), reason="sent again", actor="a")


async def conflicts(clinic: Any) -> dict[str, int]:
    """How many instances of each Study are not to be sent for another's sake."""
    rows = await clinic.ledger.fetch(
        "SELECT study, sum(CASE WHEN conflict THEN 1 ELSE 0 END) AS n FROM instance GROUP BY study"
    )
    return {row["study"]: row["n"] for row in rows}


async def test_the_wrong_study_is_rejected_afterwards(clinic: Any) -> None:
    """The corrected one goes on, its holds end, and the exam is delivered; told is it once."""
    first = await clinic.arrive(1, 2, 3, patient=wrong(clinic))
    batch = "01900000-0000-7000-8000-000000000001"
    second = await clinic.arrive(1, 2, batch=batch)
    assert await clinic.state(second) == "matched"
    assert await conflicts(clinic) == {first: 0, second: 2}
    holds = [h for h in await find_holds(clinic.ledger) if h.kind == "instance"]
    assert len(holds) == 2
    told = await clinic.ledger.fetch(
        "SELECT exam FROM outbox WHERE event = 'study_held' AND dedupe LIKE ?", f"%{batch}"
    )
    assert [row["exam"] for row in told] == [clinic.exam.id]
    assert await clinic.send() == 0
    await reject(clinic, first)
    # What was not sent again keeps its place.
    assert await conflicts(clinic) == {first: 2, second: 0}
    assert await find_holds(clinic.ledger) == []
    assert await clinic.send() == 2
    assert await clinic.settle() == "delivered"
    assert await clinic.way() == ("delivered", 2, 2)


async def test_the_wrong_study_was_rejected_before(clinic: Any) -> None:
    """The corrected one is sent as it comes, and nothing is held."""
    first = await clinic.arrive(1, 2, patient=wrong(clinic))
    await reject(clinic, first)
    second = await clinic.arrive(1, 2)
    assert await conflicts(clinic) == {first: 2, second: 0}
    assert await find_holds(clinic.ledger) == []
    assert await clinic.send() == 2
    # More of it, corrected likewise, follows.
    await clinic.arrive(3, patient=wrong(clinic))
    await reject(clinic, first)
    await clinic.arrive(3)
    assert await clinic.send() == 1


async def test_what_is_held_or_sent_gives_no_way(clinic: Any) -> None:
    """Other content of an image is held as long as nobody rejected the Study of the first."""
    await clinic.arrive(1)
    other = await clinic.arrive(1, text="x", accession_number="A7")
    assert [h.kind for h in await find_holds(clinic.ledger)] == ["instance"]
    assert (await conflicts(clinic))[other] == 1
    assert await clinic.send() == 1
    (hold,) = await find_holds(clinic.ledger)
    await reject_hold(clinic.engine, hold.id, reason="r", actor="a")
    assert (await conflicts(clinic))[other] == 1
    assert await clinic.send() == 0


@pytest.mark.parametrize("corrected", [2, 3])
async def test_of_several_the_newest_takes_the_place(clinic: Any, corrected: int) -> None:
    """It was corrected more than once: one content is sent."""
    first = await clinic.arrive(1, patient=wrong(clinic))
    for number in range(1, corrected):
        last = await clinic.arrive(1, text=f"{number}", accession_number=f"A{number}")
    await reject(clinic, first)
    assert (await conflicts(clinic))[last] == 0
    assert sum((await conflicts(clinic)).values()) == corrected - 1
    assert await clinic.send() == 1


async def release(clinic: Any, study: str) -> str:
    """A person lets it join JANE's exam; the hold that ended so."""
    hold = await clinic.hold(study)
    assert await release_hold(clinic.engine, hold, clinic.exam.number, reason="r", actor="a")
    return str(hold)


async def sent(clinic: Any) -> set[str]:
    """The contents that are on their way, or were sent."""
    rows = await clinic.ledger.fetch(
        "SELECT i.digest FROM delivery_item d JOIN instance i ON i.id = d.instance"
        " WHERE d.state <> 'cancelled'"
    )
    return {row["digest"] for row in rows}


async def digests(clinic: Any, batch: str) -> set[str]:
    """Of what came in a batch."""
    rows = await clinic.ledger.fetch("SELECT digest FROM instance WHERE batch = ?", batch)
    return {row["digest"] for row in rows}


FIRST, AGAIN = (f"01900000-0000-7000-8000-00000000000{n}" for n in "12")


@pytest.mark.parametrize("before", [True, False], ids=["known before", "new"])
async def test_the_same_study_is_corrected_in_its_content(clinic: Any, before: bool) -> None:
    """The identity is as it was: the rejected content stays behind, the new one is sent."""
    first = await clinic.arrive(1, 2, patient=wrong(clinic), batch=FIRST)
    if before:  # the correction came early, and was rejected with the rest
        await clinic.arrive(1, 2, patient=wrong(clinic), text="x")
    await reject(clinic, first)
    assert await clinic.arrive(1, 2, patient=wrong(clinic), text="x", batch=AGAIN) == first
    assert await conflicts(clinic) == {first: 2}
    await release(clinic, first)
    assert await find_holds(clinic.ledger) == []
    assert await clinic.send() == 2
    assert await sent(clinic) == await digests(clinic, AGAIN)
    assert await clinic.settle() == "delivered"
    assert await clinic.way() == ("delivered", 2, 2)


async def test_the_same_files_after_a_rejection(clinic: Any) -> None:
    """They are sent again as before, and asked about again; nothing is a silent duplicate."""
    first = await clinic.arrive(1, 2, patient=wrong(clinic))
    await reject(clinic, first)
    assert await clinic.arrive(1, 2, patient=wrong(clinic), batch=AGAIN) == first
    assert await clinic.state(first) == "held"
    assert len(await digests(clinic, AGAIN)) == 2
    assert len(list(clinic.engine.archive.root.rglob("*.dcm"))) == 2
    await release(clinic, first)
    assert await clinic.send() == 2
    # What is sent is a duplicate, as ever.
    assert await clinic.arrive(1, 2, patient=wrong(clinic)) == ""
    assert await clinic.send() == 0
    assert await audit.verify(clinic.ledger) is None


async def test_the_same_files_by_the_page_of_the_exam(clinic: Any) -> None:
    """Nobody knew them; now they are said to be of the exam, and are matched as that."""
    stray = structs.replace(clinic.jane, patient_id="P9")
    first = await clinic.arrive(1, 2, 3, patient=stray)
    await reject(clinic, first)
    bound = await clinic.arrive(1, 2, patient=stray, exam_number=clinic.exam.number)
    assert bound != first
    assert await clinic.state(bound) == "matched"
    assert await clinic.state(first) == "rejected"
    assert await conflicts(clinic) == {first: 0, bound: 0}
    assert await clinic.send() == 2
    assert await clinic.settle() == "delivered"
    assert (await clinic.now()).status == "delivered"


async def test_the_same_files_after_a_recall_and_a_rejection(clinic: Any) -> None:
    """They were queued for the exam: they are sent once more when it is decided so."""
    first = await clinic.arrive(1, patient=wrong(clinic))
    hold = await release(clinic, first)
    assert await clinic.send() == 1
    await recall_hold(clinic.engine, hold, reason="r", actor="a")
    await reject(clinic, first)
    await clinic.arrive(1, patient=wrong(clinic))
    assert await clinic.send() == 0
    await release(clinic, first)
    assert await clinic.send() == 1
    assert await clinic.way() == ("delivered", 1, 1)


async def test_what_gave_way_is_not_sent_with_its_study(clinic: Any) -> None:
    """It was sent, recalled and rejected; more of its Study is released to the same exam."""
    first = await clinic.arrive(1, patient=wrong(clinic))
    hold = await release(clinic, first)
    assert await clinic.send() == 1
    await recall_hold(clinic.engine, hold, reason="r", actor="a")
    await reject(clinic, first)
    second = await clinic.arrive(1)
    assert await conflicts(clinic) == {first: 1, second: 0}
    assert await clinic.send() == 1
    await clinic.arrive(2, patient=wrong(clinic))
    await release(clinic, first)
    assert await clinic.send() == 1
    assert await clinic.way() == ("delivered", 2, 2)
    assert await find_holds(clinic.ledger) == []


async def test_what_a_person_rejected_takes_no_place(clinic: Any) -> None:
    """The other content was rejected by itself: only when it comes again is it sent."""
    first = await clinic.arrive(1, patient=wrong(clinic))
    other = await clinic.arrive(1)
    (hold,) = [h for h in await find_holds(clinic.ledger) if h.kind == "instance"]
    await reject_hold(clinic.engine, hold.id, reason="r", actor="a")
    assert await clinic.arrive(1) == ""  # it is known, and decided on
    await reject(clinic, first)
    assert await conflicts(clinic) == {first: 0, other: 1}
    assert await clinic.send() == 0
    assert await clinic.arrive(1) == other
    assert await conflicts(clinic) == {first: 1, other: 0}
    assert await clinic.send() == 1
    assert await find_holds(clinic.ledger) == []
