"""Holds as they are listed."""

from typing import Any

from rso.ledger import Ledger, new_id
from rso.ledger.holds import find_holds, open_hold


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
