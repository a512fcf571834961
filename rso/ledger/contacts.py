"""How people are reached: their addresses, the codes that prove them, what they want to hear."""

import re
import secrets
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any

import msgspec

from rso.core.errors import ConfigError
from rso.ledger import site_tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id

__all__ = [
    "add_contact",
    "confirm_contact",
    "contacts_of",
    "leave",
    "owner_of_leave_key",
    "people_of_facilities",
    "people_of_facility",
    "remove_contact",
    "save_preferences",
    "set_opted_out",
    "usable_contacts",
    "usable_contacts_of_all",
]

_CODE_MINUTES = 15
_CODE_TRIES = 5
_MOST_CONTACTS = 20


async def contacts_of(ledger: Ledger, owner: str, kind: str = "user") -> list[dict[str, Any]]:
    """Every contact of a person, the preferred first."""
    return await ledger.fetch(
        "SELECT * FROM contact WHERE owner_kind = ? AND owner = ? ORDER BY position, id",
        kind,
        owner,
    )


async def usable_contacts(ledger: Ledger, kind: str, owner: str) -> list[dict[str, Any]]:
    """Those that are proven and not opted out."""
    rows = await contacts_of(ledger, owner, kind)
    return [row for row in rows if row["verified_at"] is not None and not row["opted_out"]]


async def usable_contacts_of_all(ledger: Ledger, kind: str) -> dict[str, list[dict[str, Any]]]:
    """Those that are proven and not opted out, by owner, the preferred first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in await ledger.fetch(
        "SELECT * FROM contact WHERE owner_kind = ? AND verified_at IS NOT NULL AND NOT opted_out"
        " ORDER BY owner, position, id",
        kind,
    ):
        found.setdefault(row["owner"], []).append(row)
    return found


async def people_of_facility(
    ledger: Ledger, facility: str, roles: Sequence[str]
) -> list[dict[str, Any]]:
    """Users of these roles who act for a facility, and those without a facility of their own."""
    return await people_of_facilities(ledger, [facility], roles)


async def people_of_facilities(
    ledger: Ledger, facilities: Sequence[str], roles: Sequence[str]
) -> list[dict[str, Any]]:
    """As ``people_of_facility`` for any of several; ``at`` says for which of them each acts."""
    rows = await ledger.fetch("SELECT * FROM user_account ORDER BY name, email")
    found = []
    for row in rows:
        own = msgspec.json.decode(row["facilities"], type=list[str])
        everywhere = not own and row["role"] in {"admin", "coordinator", "auditor"}
        at = [code for code in facilities if everywhere or code in own]
        if row["role"] in roles and at:
            found.append({**row, "at": at})
    return found


async def add_contact(ledger: Ledger, owner: str, channel: str, address: str) -> str:
    """Add an address that is not proven yet; returns the code that proves it.

    Raises:
        ConfigError: There are too many.
    """
    if len(await contacts_of(ledger, owner)) >= _MOST_CONTACTS:
        raise ConfigError(f"a person has at most {_MOST_CONTACTS} contacts")
    code = f"{secrets.randbelow(1_000_000):06}"
    values = {
        "code_hash": sha256(code.encode()).hexdigest(),
        "code_until": now() + timedelta(minutes=_CODE_MINUTES),
        "code_tries": 0,
    }
    added = await ledger.insert_rows(
        site_tables.Contact,
        [
            {
                "id": new_id(),
                "owner_kind": "user",
                "owner": owner,
                "channel": channel,
                "address": address,
                "verified_at": None,
                "opted_out": False,
                "position": len(await contacts_of(ledger, owner)),
                "leave_key": secrets.token_urlsafe(24),
                **values,
            }
        ],
        on_conflict="nothing",
    )
    if not added:  # known: a new code, for somebody who lost the first or opted out
        await ledger.execute(
            "UPDATE contact SET code_hash = ?, code_until = ?, code_tries = ?"
            " WHERE owner_kind = 'user' AND owner = ? AND channel = ? AND address = ?",
            *values.values(),
            owner,
            channel,
            address,
        )
    return code


async def confirm_contact(ledger: Ledger, owner: str, contact_id: str, code: str) -> bool:
    """Whether the code was right; five wrong ones end it."""
    async with ledger.transaction():
        rows = await ledger.fetch(
            "UPDATE contact SET code_tries = code_tries + 1 WHERE id = ? AND owner = ?"
            " AND owner_kind = 'user' AND code_until > ? AND code_tries < ? RETURNING code_hash",
            contact_id,
            owner,
            now(),
            _CODE_TRIES,
        )
        given = sha256(code.strip().encode()).hexdigest()
        if not rows or not secrets.compare_digest(rows[0]["code_hash"], given):
            return False
        await ledger.execute(
            "UPDATE contact SET verified_at = ?, opted_out = ?, code_hash = '', code_until = NULL"
            " WHERE id = ?",
            now(),
            False,
            contact_id,
        )
    return True


async def remove_contact(ledger: Ledger, owner: str, contact_id: str) -> None:
    """Forget an address."""
    await ledger.execute(
        "DELETE FROM contact WHERE id = ? AND owner = ? AND owner_kind = 'user'", contact_id, owner
    )


async def save_preferences(
    ledger: Ledger,
    owner: str,
    contact_id: str,
    *,
    events: str,
    quiet: str,
    timezone: str,
    breaks_quiet: str,
) -> None:
    """What an address is told, when not, and what may come then (``yes``, ``no`` or empty)."""
    await ledger.execute(
        "UPDATE contact SET events = ?, quiet = ?, timezone = ?, breaks_quiet = ?"
        " WHERE id = ? AND owner = ? AND owner_kind = 'user'",
        events,
        quiet,
        timezone,
        breaks_quiet,
        contact_id,
        owner,
    )


async def owner_of_leave_key(ledger: Ledger, key: str) -> dict[str, Any] | None:
    """The contact that a link for leaving belongs to."""
    rows = await ledger.fetch("SELECT * FROM contact WHERE leave_key = ?", key) if key else []
    return rows[0] if rows else None


async def leave(ledger: Ledger, key: str) -> bool:
    """Send nothing more to the address with this key."""
    found = await owner_of_leave_key(ledger, key)
    if found is not None:
        await ledger.execute("UPDATE contact SET opted_out = ? WHERE id = ?", True, found["id"])
    return found is not None


async def set_opted_out(ledger: Ledger, channel: str, number: str, *, opted_out: bool) -> int:
    """Send nothing more to a telephone number, or again; returns how many contacts changed.

    Again only where the address was proven: a contact's code is not replaced by an answer.
    """
    rows = await ledger.fetch(
        "SELECT id, address, verified_at FROM contact WHERE channel = ? AND opted_out = ?",
        channel,
        not opted_out,
    )
    found = [
        row["id"]
        for row in rows
        if _digits(row["address"]) == _digits(number) and (opted_out or row["verified_at"])
    ]
    for contact in found:
        await ledger.execute("UPDATE contact SET opted_out = ? WHERE id = ?", opted_out, contact)
    return len(found)


def _digits(address: str) -> str:
    """A number without what people write between its digits: site.toml has it as typed."""
    return re.sub(r"\D", "", address).removeprefix("00")
