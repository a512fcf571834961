"""Drafts: what somebody has typed into the request form, kept for when they come back.

One a person, at a facility that the person may still act for; an old one is forgotten.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from rso.ledger.exams import now
from rso.ledger.ledger import Ledger

__all__ = ["DRAFT_DAYS", "Draft", "drop_draft", "find_draft", "save_draft"]

DRAFT_DAYS = 7
_MOST = 40_000  # characters of JSON


class Draft(Struct, frozen=True, kw_only=True):
    """A form as far as it was filled in."""

    form: dict[str, str]
    saved_at: datetime


async def save_draft(ledger: Ledger, account: str, form: Mapping[str, str]) -> bool:
    """Keep a form in place of the person's earlier one; False when it is too long to keep."""
    text = msgspec.json.encode(dict(form)).decode()
    if len(text) > _MOST:
        return False
    async with ledger.transaction():
        await ledger.execute(
            "DELETE FROM request_draft WHERE account = ? OR saved_at < ?",
            account,
            now() - timedelta(days=DRAFT_DAYS),
        )
        await ledger.execute(
            "INSERT INTO request_draft (account, facility, form, saved_at) VALUES (?, ?, ?, ?)",
            account,
            form.get("facility", ""),
            text,
            now(),
        )
    return True


async def find_draft(
    ledger: Ledger, account: str, facilities: Sequence[str] | None
) -> Draft | None:
    """The person's draft, unless it is too old or of a facility that is theirs no more."""
    rows = await ledger.fetch(
        "SELECT facility, form, saved_at FROM request_draft WHERE account = ? AND saved_at > ?",
        account,
        now() - timedelta(days=DRAFT_DAYS),
    )
    if not rows or (facilities is not None and rows[0]["facility"] not in facilities):
        return None
    form = msgspec.json.decode(rows[0]["form"], type=dict[str, str])
    return Draft(form=form, saved_at=rows[0]["saved_at"])


async def drop_draft(ledger: Ledger, account: str) -> None:
    """Forget the person's draft."""
    await ledger.execute("DELETE FROM request_draft WHERE account = ?", account)
