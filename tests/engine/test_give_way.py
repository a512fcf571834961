"""Images that were corrected and sent again under the same UIDs, before or after a rejection."""

from typing import Any

import pytest
from msgspec import structs

from rso.engine.holds import reject_hold
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
