"""People: passwords and attempts to sign in."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from msgspec import Struct

from rso.core.errors import ConfigError
from rso.core.hosts import host_of
from rso.core.password import HASHER, is_right
from rso.core.turns import Turns
from rso.ledger import site_tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id
from rso.ledger.refused_sign_ins import note_refused
from rso.ledger.tries import count_up, recent, take_back

__all__ = [
    "SHORTEST_PASSWORD",
    "Person",
    "change_password",
    "check_new_password",
    "hash_new",
    "hash_password",
    "is_disabled",
    "is_over",
    "person_of",
    "set_disabled",
    "sign_in",
    "too_many",
    "upsert_user",
]

SHORTEST_PASSWORD = 10  # characters
_LONGEST_PASSWORD = 1000
# argon2 takes 64 MB and a tenth of a second each: a few at once, never in the event loop. What
# strangers may ask for waits in a queue of its own, before which nobody holds the database.
_SIGN_INS = Turns(2, most=200, each=100)
_CHANGES = Turns(2, most=10_000)
_MOST_FAILURES = 10
_KEPT = timedelta(days=1)


class Person(Struct, frozen=True, kw_only=True):
    """Who acts. ``facilities`` is ``None`` for roles that see every facility."""

    email: str
    name: str
    role: str
    facilities: tuple[str, ...] | None


def person_of(row: dict[str, Any]) -> Person:
    """The person of a row of ``user_account``."""
    own = tuple(msgspec.json.decode(row["facilities"], type=list[str]))
    everywhere = row["role"] in {"admin", "coordinator", "auditor"} and not own
    return Person(
        email=row["email"],
        name=row["name"],
        role=row["role"],
        facilities=None if everywhere else own,
    )


def check_new_password(password: str) -> None:
    """Raise ConfigError where it is shorter or longer than a new one may be."""
    if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise ConfigError(
            f"a password has at least {SHORTEST_PASSWORD} characters,"
            f" and at most {_LONGEST_PASSWORD}"
        )


async def hash_password(password: str, old: str = "") -> str:
    """An argon2 hash; a hash is taken as it is, and ``old`` where it fits already."""
    if not password:
        return old
    if password.startswith("$argon2"):
        return password
    if old and await verify_password(password, old):
        return old
    return await hash_new(password)


async def hash_new(password: str) -> str:
    """An argon2 hash of what somebody typed, whatever it looks like."""
    async with _CHANGES.take():
        return await asyncio.to_thread(HASHER.hash, password)


async def verify_password(password: str, hashed: str) -> bool:
    """Whether a password of somebody who is known belongs to a hash."""
    async with _CHANGES.take():
        return await asyncio.to_thread(is_right, password, hashed)


async def upsert_user(
    ledger: Ledger,
    *,
    email: str,
    role: str,
    name: str = "",
    facilities: Sequence[str] = (),
    password: str = "",
) -> None:
    """Add a person, or change the one with this address; an empty password keeps the old."""
    email = email.lower()
    if role in {"customer", "technician"} and not facilities:
        raise ConfigError(f"user {email}: a {role} needs facilities")
    if role == "admin" and facilities:
        raise ConfigError(f"user {email}: an admin has the whole site, no facilities")
    rows = await ledger.fetch("SELECT password_hash FROM user_account WHERE email = ?", email)
    hashed = await hash_password(password, rows[0]["password_hash"] if rows else "")
    values = [name, role, msgspec.json.encode(list(facilities)).decode(), hashed]
    if rows:
        await ledger.execute(
            "UPDATE user_account SET name = ?, role = ?, facilities = ?, password_hash = ?"
            " WHERE email = ?",
            *values,
            email,
        )
        return
    columns = ("name", "role", "facilities", "password_hash")
    await ledger.insert_rows(
        site_tables.User,
        [
            {
                "id": new_id(),
                "email": email,
                **dict(zip(columns, values, strict=True)),
                "created_at": now(),
            }
        ],
    )


async def is_over(ledger: Ledger, subject: str, most: int = 5) -> bool:
    """Whether ``too_many`` counted as much within the last minute; counts nothing."""
    return await recent(ledger, subject) >= most


async def too_many(ledger: Ledger, subject: str, most: int = 5) -> bool:
    """Count one more of something that costs, and say whether it is too much for a minute."""
    full, _ = await count_up(ledger, {subject: most})
    return bool(full)


async def sign_in(ledger: Ledger, email: str, password: str, address: str) -> Person | str:
    """The person, or in words why not; ten failures a minute lock the account, fifty the host.

    Raises:
        BusyError: Too many passwords wait to be looked at.
    """
    email, host = email.strip().lower()[:254], host_of(address)
    limits = {f"account:{email}": _MOST_FAILURES, f"address:{host}": _MOST_FAILURES * 5}
    for subject, most in limits.items():
        if await is_over(ledger, subject, most):
            return await _locked(ledger, subject, email, address)
    async with _SIGN_INS.take(host):
        # A guess counts before it is looked at: of any number at once no more are than may be.
        full, counted = await count_up(ledger, limits)
        if full:
            return await _locked(ledger, full, email, address)
        found = await ledger.fetch(
            "SELECT * FROM user_account WHERE email = ? AND NOT disabled", email
        )
        hashed = found[0]["password_hash"] if found else ""
        right = await asyncio.to_thread(is_right, password, hashed)
    if right:
        await take_back(ledger, counted)
        return person_of(found[0])
    await ledger.execute("DELETE FROM login_attempt WHERE at < ?", now() - _KEPT)
    await note_refused(ledger, "sign-in refused", email, address)
    return "Email or password is wrong."


async def _locked(ledger: Ledger, subject: str, email: str, address: str) -> str:
    kind = subject.partition(":")[0]
    await note_refused(ledger, "sign-in locked", email, address, locked=kind)
    return "Too many attempts. Please wait a minute."


async def change_password(ledger: Ledger, email: str, old: str, new: str) -> bool:
    """Whether the old password was right; the new one counts then."""
    rows = await ledger.fetch("SELECT password_hash FROM user_account WHERE email = ?", email)
    if not rows or not await verify_password(old, rows[0]["password_hash"]):
        return False
    hashed = await hash_new(new)
    await ledger.execute("UPDATE user_account SET password_hash = ? WHERE email = ?", hashed, email)
    return True


async def is_disabled(ledger: Ledger, email: str) -> bool:
    """Whether somebody may not sign in."""
    rows = await ledger.fetch("SELECT disabled FROM user_account WHERE email = ?", email.lower())
    return bool(rows and rows[0]["disabled"])


async def set_disabled(ledger: Ledger, email: str, *, disabled: bool) -> None:
    """Let a person in no more, and end what is open; or let them in again."""
    email = email.lower()
    await ledger.execute("UPDATE user_account SET disabled = ? WHERE email = ?", disabled, email)
    if disabled:
        await ledger.execute("DELETE FROM web_session WHERE account = ?", email)
