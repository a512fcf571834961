"""Refused sign-ins in the audit: few entries, however often and from wherever somebody tries."""

from datetime import timedelta

from rso.core.hosts import host_of
from rso.ledger import audit, site_tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id
from rso.ledger.tries import one_at_a_time, recent

__all__ = ["note_refused"]

_PERIOD = timedelta(minutes=15)
_MOST = 100  # entries of the whole site in a period
_ALL = "noted"


async def note_refused(
    ledger: Ledger, action: str, email: str, address: str, *, locked: str = ""
) -> None:
    """Write down that somebody was not let in, unless that was done lately.

    One entry in a quarter of an hour for an account and the network of an address, and one for
    what is locked; past a hundred in that time one more says that the next are not written. What
    was typed stands in none: an address of email only where it is an account's.

    Args:
        ledger: The ledger.
        action: What was refused.
        email: As it was typed, in lower case.
        address: The peer's.
        locked: What is locked: ``account`` or ``address``.
    """
    rows = await ledger.fetch("SELECT email FROM user_account WHERE email = ?", email)
    facts = {"account": email if rows else "", "address": address, "locked": locked}
    about = {"account": email, "address": host_of(address)}.get(
        locked, f"{facts['account']} {host_of(address)}"
    )
    subject = f"{_ALL}:{action}:{locked}:{about}"[:300]
    if await recent(ledger, subject, _PERIOD) or await recent(ledger, _ALL, _PERIOD) > _MOST:
        return  # as most are, without a look that others have to wait for
    async with ledger.transaction():
        await one_at_a_time(ledger, _ALL)
        before = await recent(ledger, _ALL, _PERIOD)
        if before > _MOST or await recent(ledger, subject, _PERIOD):
            return
        if before == _MOST:
            facts = {"further": "not written for a quarter of an hour"}
        at = now()
        await ledger.insert_rows(
            site_tables.Login,
            [{"id": new_id(), "subject": said, "at": at} for said in (subject, _ALL)],
        )
        await audit.append(
            ledger, actor="sign-in", action=action,
            facts={name: value for name, value in facts.items() if value},
        )  # fmt: skip
