"""Holds as they are listed."""

from typing import Any

from rso.ledger import Ledger, new_id
from rso.ledger.holds import find_holds, open_hold, open_holds


async def test_holds_are_limited_by_the_database(ledger: Ledger) -> None:
    """The oldest so many, alarms before them if asked, or those of one reason."""
    opened = [
        await open_hold(
            ledger, kind="study", facility="F", study=new_id(), reason=reason, alarm=alarm
        )
        for reason, alarm in (("a", False), ("b", False), ("a", True))
    ]

    async def found(**words: Any) -> list[int]:
        return [opened.index(str(hold.id)) for hold in await find_holds(ledger, **words)]

    assert await found() == [0, 1, 2]
    assert await found(most=2) == [0, 1]
    assert await found(alarms_first=True, most=2) == [2, 0]
    assert await found(reason="a") == [0, 2]


async def test_holds_follow_a_place(ledger: Ledger) -> None:
    """Alarms first, page after page: each is on one page, whatever is opened or decided meanwhile."""
    for alarm in (False, True, False, True, False):
        await open_hold(ledger, kind="study", facility="F", study=new_id(), reason="a", alarm=alarm)
    at = (await find_holds(ledger))[0].opened_at
    await ledger.execute("UPDATE hold SET opened_at = ?", at)  # all at once: the key decides
    whole = [hold.id for hold in await find_holds(ledger, alarms_first=True)]
    seen, after = list[str](), None
    while page := await find_holds(ledger, alarms_first=True, after=after, most=1):
        seen.append(page[0].id)
        after = (page[0].alarm, page[0].opened_at, page[0].id)
        assert (await open_holds(ledger, ["F"], after=after))["count"] == 5 - len(seen)
        await ledger.execute("UPDATE hold SET state = 'rejected' WHERE id = ?", seen[-1])
    assert seen == whole
