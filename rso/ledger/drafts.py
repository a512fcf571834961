"""Drafts: what somebody has typed into the request form, kept for when they come back.

One a person, at a facility that the person may still act for; an old one is forgotten. A form has a
key of its own, so that two that are open side by side do not take each other's documents.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from rso.ledger.exams import now
from rso.ledger.ledger import Ledger

__all__ = ["DRAFT_DAYS", "Draft", "drop_draft", "find_draft", "forget_drafts", "save_draft"]

DRAFT_DAYS = 7
_MOST = 40_000  # characters of JSON


class Draft(Struct, frozen=True, kw_only=True):
    """A form as far as it was filled in.

    Attributes:
        key: Of the form; empty where it had none.
    """

    form: dict[str, str]
    saved_at: datetime
    key: str = ""


async def save_draft(ledger: Ledger, account: str, form: Mapping[str, str], key: str = "") -> bool:
    """Keep a form in place of the person's earlier one; False when it is too long to keep.

    Documents that were chosen with the form are kept as long as it is.
    """
    text = msgspec.json.encode(dict(form)).decode()
    if len(text) > _MOST:
        return False
    at = now()
    async with ledger.transaction():
        # One statement: two pages of a person may save at once.
        await ledger.execute(
            "INSERT INTO request_draft (account, facility, form, saved_at, draft)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET"
            " facility = excluded.facility, form = excluded.form, saved_at = excluded.saved_at,"
            " draft = excluded.draft",
            account,
            form.get("facility", ""),
            text,
            at,
            key,
        )
        if key:
            await ledger.execute(
                "UPDATE draft_document SET kept_until = ? WHERE account = ? AND draft = ?",
                at + timedelta(days=DRAFT_DAYS),
                account,
                key,
            )
    return True


async def find_draft(
    ledger: Ledger, account: str, facilities: Sequence[str] | None
) -> Draft | None:
    """The person's draft, unless it is too old or of a facility that is theirs no more."""
    rows = await ledger.fetch(
        "SELECT facility, form, saved_at, draft FROM request_draft"
        " WHERE account = ? AND saved_at > ?",
        account,
        now() - timedelta(days=DRAFT_DAYS),
    )
    if not rows or (facilities is not None and rows[0]["facility"] not in facilities):
        return None
    form = msgspec.json.decode(rows[0]["form"], type=dict[str, str])
    return Draft(form=form, saved_at=rows[0]["saved_at"], key=rows[0]["draft"])


async def drop_draft(ledger: Ledger, account: str, key: str = "") -> None:
    """Forget the person's draft of this form, or one without a key."""
    await ledger.execute(
        "DELETE FROM request_draft WHERE account = ? AND draft IN (?, '')", account, key
    )


async def forget_drafts(ledger: Ledger) -> int:
    """Forget what is too old, of everybody; returns how many drafts."""
    await ledger.execute("DELETE FROM request_sent WHERE sent_at < ?", now() - timedelta(days=1))
    return await ledger.execute(
        "DELETE FROM request_draft WHERE saved_at < ?", now() - timedelta(days=DRAFT_DAYS)
    )
