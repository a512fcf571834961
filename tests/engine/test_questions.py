"""A Study whose identity is in question waits, all of it, and its exam is not delivered."""

from typing import Any

import pytest
from msgspec import structs

from rso.engine import router
from rso.engine.exam_deliveries import act_on_delivery
from rso.engine.holds import create_from_hold, recall_hold, reject_hold, release_hold
from rso.engine.router import NO_DESTINATION, retry_routing
from rso.ledger.holds import find_holds


def other(clinic: Any, name: str) -> Any:
    """Somebody else, with JANE's exam number and birth date."""
    return structs.replace(clinic.jane, name=name)


async def decide(clinic: Any, study: str, how: str) -> None:
    """A person decides on what is held."""
    hold = await clinic.hold(study)
    if how == "reject":
        await reject_hold(clinic.engine, hold, reason="r", actor="a")
    elif how == "create":
        await create_from_hold(clinic.engine, hold, reason="r", actor="a")
    else:
        assert await release_hold(clinic.engine, hold, clinic.exam.number, reason="r", actor="a")


async def test_what_comes_while_its_study_is_stopped_counts(clinic: Any) -> None:
    """Settled is the exam and not delivered, until what waited is acknowledged."""
    janes = await clinic.arrive(1, 2)
    assert await clinic.send() == 2
    assert await clinic.settle() == "delivered"
    marys = await clinic.arrive(3, patient=other(clinic, "ROE^MARY"))
    assert await clinic.state(janes) == "stopped"
    assert (await clinic.now()).status == "delivered"  # nothing new is of it
    await clinic.arrive(4, 5)
    (row,) = await clinic.ledger.fetch("SELECT status, instances FROM exam")
    assert row == {"status": "receiving", "instances": 4}
    assert await clinic.send() == 0
    assert await clinic.settle() == "settled"
    await decide(clinic, marys, "reject")
    assert (await clinic.now()).status == "receiving"
    assert await clinic.settle() == "settled"
    assert await clinic.send() == 2
    assert (await clinic.now()).status == "delivered"
    assert await clinic.way() == ("delivered", 4, 4)


async def test_a_question_about_what_was_all_sent(clinic: Any) -> None:
    """Nothing of the exam waits: the answer declares it delivered, and a delivered one stays so."""
    await clinic.arrive(1)
    await clinic.send()
    first = await clinic.arrive(2, patient=other(clinic, "ROE^MARY"))
    assert await clinic.settle() == "settled"
    await decide(clinic, first, "reject")
    assert (await clinic.now()).status == "delivered"
    second = await clinic.arrive(3, patient=other(clinic, "ROE^ANNE"))
    await decide(clinic, second, "reject")
    assert (await clinic.now()).status == "delivered"


@pytest.mark.parametrize("how", ["reject", "create", "release"])
async def test_one_answer_of_two_lets_nothing_go(clinic: Any, how: str) -> None:
    """Two parts name others; the Study goes on when both are decided, what was released too."""
    janes = await clinic.arrive(1)
    marys = await clinic.arrive(2, patient=other(clinic, "ROE^MARY"))
    annes = await clinic.arrive(3, patient=other(clinic, "ROE^ANNE"))
    await decide(clinic, marys, how)
    assert await clinic.state(janes) == "stopped"
    assert await clinic.state(marys) == ("rejected" if how == "reject" else "stopped")
    assert await clinic.send() == 0
    await decide(clinic, annes, "reject")
    assert await clinic.state(janes) == "matched"
    assert await clinic.send() == (1 if how == "reject" else 2)


async def test_a_part_that_matches_waits_with_the_stopped_one(clinic: Any) -> None:
    """JANE's again, under another Accession Number: it is in the exam and not sent."""
    await clinic.arrive(1)
    marys = await clinic.arrive(2, patient=other(clinic, "ROE^MARY"))
    more = await clinic.arrive(3, accession_number="A7")
    assert await clinic.state(more) == "stopped"
    assert await clinic.send() == 0
    (row,) = await clinic.ledger.fetch("SELECT instances FROM exam")
    assert row["instances"] == 2
    await decide(clinic, marys, "reject")
    assert await clinic.state(more) == "matched"
    assert await clinic.send() == 2


async def test_a_recall_asks_again(clinic: Any) -> None:
    """What was released turns out to be another's: the rest of the Study stops, as at first."""
    janes = await clinic.arrive(1)
    marys = await clinic.arrive(2, patient=other(clinic, "ROE^MARY"))
    hold = await clinic.hold(marys)
    await decide(clinic, marys, "release")
    assert await clinic.state(janes) == "matched"
    await recall_hold(clinic.engine, hold, reason="wrong", actor="a")
    assert await clinic.state(janes) == "stopped"
    assert await clinic.send() == 0
    await decide(clinic, marys, "reject")
    assert await clinic.send() == 1


async def test_what_still_waits_is_recalled(clinic: Any) -> None:
    """The rest of the exam is acknowledged and settled: it is delivered."""
    await clinic.arrive(1)
    stranger = structs.replace(clinic.jane, patient_id="P9")
    theirs = await clinic.arrive(2, patient=stranger, study_instance_uid="1.3")
    assert await clinic.send() == 1
    hold = await clinic.hold(theirs)
    await decide(clinic, theirs, "release")
    assert await clinic.settle() == "settled"
    await recall_hold(clinic.engine, hold, reason="wrong", actor="a")
    assert (await clinic.now()).status == "delivered"


@pytest.mark.parametrize("who", ["routing", "a person"])
async def test_all_was_acknowledged_before_the_hold_was_closed(
    clinic: Any, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """A late image had nowhere to go; the way that was stopped goes on and takes it."""

    async def nowhere(*_: Any) -> None:
        return None

    study = await clinic.arrive(1)
    await act_on_delivery(clinic.engine, clinic.exam, "R-PACS", "stop", actor="boss")
    monkeypatch.setattr(router, "find_route", nowhere)
    await clinic.arrive(2)
    assert [h.reason for h in await find_holds(clinic.ledger)] == [NO_DESTINATION]
    await act_on_delivery(clinic.engine, clinic.exam, "R-PACS", "retry", actor="boss")
    assert await clinic.send() == 2
    assert await clinic.settle() == "settled"
    if who == "routing":
        assert await retry_routing(clinic.engine) == 1
    else:
        await decide(clinic, study, "release")
    assert (await clinic.now()).status == "delivered"


async def test_a_stopped_way_goes_on_while_its_study_is_in_question(clinic: Any) -> None:
    """A person stops it and lets it go on: it waits for the answer, and for nobody else."""
    await clinic.arrive(1, 2)
    marys = await clinic.arrive(3, patient=other(clinic, "ROE^MARY"))
    await act_on_delivery(clinic.engine, clinic.exam, "R-PACS", "stop", actor="boss")
    await act_on_delivery(clinic.engine, clinic.exam, "R-PACS", "retry", actor="boss")
    assert await clinic.send() == 0
    await decide(clinic, marys, "reject")
    assert await clinic.send() == 2
    await clinic.arrive(4)
    assert await clinic.send() == 1
    assert await clinic.way() == ("delivered", 3, 3)
