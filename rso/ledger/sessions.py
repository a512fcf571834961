"""Sessions of the web application; of what a cookie holds only a hash is stored."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from msgspec import Struct

from rso.ledger import site_tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger
from rso.ledger.people import Person, person_of

__all__ = [
    "Limits",
    "OpenSession",
    "begin_pending",
    "create_session",
    "end_one_session",
    "end_other_sessions",
    "end_session",
    "end_sessions",
    "find_pending",
    "find_session",
    "open_sessions",
    "session_key",
    "sessions_of",
]


class Limits(Struct, frozen=True, kw_only=True):
    """How long a session lasts: without use, and at most."""

    idle: timedelta = timedelta(minutes=30)
    most: timedelta = timedelta(hours=12)


class OpenSession(Struct, frozen=True, kw_only=True):
    """A session that is neither idle nor over.

    Attributes:
        person: Whose it is.
        csrf: Goes into every form.
        ends_at: Its latest end.
        seen_at: When it was used, with this use.
    """

    person: Person
    csrf: str
    ends_at: datetime
    seen_at: datetime


_LIMITS = Limits()
_PENDING = "pending"  # in place of a CSRF token: not a session yet
_PENDING_TIME = timedelta(minutes=5)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


async def create_session(
    ledger: Ledger, person: Person, *, limits: Limits = _LIMITS, address: str = "", agent: str = ""
) -> str:
    """Begin a session; returns what the cookie holds, of which only a hash is stored."""
    secret, at = secrets.token_urlsafe(32), now()
    await ledger.execute("DELETE FROM web_session WHERE expires_at < ?", at)
    await ledger.insert_rows(
        site_tables.Session,
        [
            {
                "id": _hash(secret),
                "account": person.email,
                "data": secrets.token_urlsafe(24),  # the CSRF token
                "created_at": at,
                "seen_at": at,
                "expires_at": at + limits.most,
                "address": address[:64],
                "agent": agent[:200],
            }
        ],
    )
    return secret


async def find_session(
    ledger: Ledger, secret: str, *, limits: Limits = _LIMITS, touch: bool = True
) -> OpenSession | None:
    """A session by its cookie, if it is neither idle nor over.

    Args:
        ledger: The ledger.
        secret: What the cookie holds.
        limits: The settings' own.
        touch: False for what a page asks by itself: that is not use.
    """
    at = now()
    rows = await ledger.fetch(
        "SELECT s.id AS session, s.data, s.seen_at, s.expires_at, u.* FROM web_session s"
        " JOIN user_account u ON u.email = s.account WHERE s.id = ? AND s.expires_at > ?"
        " AND s.seen_at > ? AND s.data <> ? AND NOT u.disabled",
        _hash(secret),
        at,
        at - limits.idle,
        _PENDING,
    )
    if not rows:
        return None
    seen: datetime = rows[0]["seen_at"]
    # Not a write for each request, but fresh enough for the page's own clock.
    if touch and at - seen > min(timedelta(seconds=20), limits.idle / 20):
        await ledger.execute(
            "UPDATE web_session SET seen_at = ? WHERE id = ?", at, rows[0]["session"]
        )
        seen = at
    return OpenSession(
        person=person_of(rows[0]),
        csrf=rows[0]["data"],
        ends_at=rows[0]["expires_at"],
        seen_at=seen,
    )


def session_key(secret: str) -> str:
    """The key of a session, from which the cookie cannot be made again."""
    return _hash(secret)


async def open_sessions(
    ledger: Ledger, keys: Sequence[str], *, limits: Limits = _LIMITS
) -> dict[str, Person]:
    """Which of these sessions are neither idle nor over, and whose; nobody's is kept awake."""
    at = now()
    marks = ",".join("?" * len(keys)) or "NULL"
    rows = await ledger.fetch(
        "SELECT s.id AS session, u.* FROM web_session s JOIN user_account u ON u.email ="  # noqa: S608
        f" s.account WHERE s.id IN ({marks}) AND s.expires_at > ? AND s.seen_at > ?"
        " AND s.data <> ? AND NOT u.disabled",
        *keys,
        at,
        at - limits.idle,
        _PENDING,
    )
    return {row["session"]: person_of(row) for row in rows}


async def end_session(ledger: Ledger, secret: str) -> None:
    """Sign out."""
    await ledger.execute("DELETE FROM web_session WHERE id = ?", _hash(secret))


async def begin_pending(ledger: Ledger, person: Person) -> str:
    """The password was right, the second factor is to come: a ticket for five minutes."""
    secret, at = secrets.token_urlsafe(32), now()
    await ledger.insert_rows(
        site_tables.Session,
        [
            {
                "id": _hash(secret),
                "account": person.email,
                "data": _PENDING,
                "created_at": at,
                "seen_at": at,
                "expires_at": at + _PENDING_TIME,
            }
        ],
    )
    return secret


async def find_pending(ledger: Ledger, secret: str) -> Person | None:
    """Whose ticket it is."""
    rows = await ledger.fetch(
        "SELECT u.* FROM web_session s JOIN user_account u ON u.email = s.account"
        " WHERE s.id = ? AND s.data = ? AND s.expires_at > ? AND NOT u.disabled",
        _hash(secret),
        _PENDING,
        now(),
    )
    return person_of(rows[0]) if rows else None


async def sessions_of(
    ledger: Ledger, email: str, *, limits: Limits = _LIMITS, secret: str = ""
) -> list[dict[str, Any]]:
    """A person's open sessions; ``own`` is true of the one with this cookie."""
    rows = await ledger.fetch(
        "SELECT id, created_at, seen_at, address, agent FROM web_session WHERE account = ?"
        " AND data <> ? AND expires_at > ? AND seen_at > ? ORDER BY created_at",
        email,
        _PENDING,
        now(),
        now() - limits.idle,
    )
    # The key is a hash already, but a page need not show the whole of it.
    return [{**row, "id": row["id"][:16], "own": row["id"] == _hash(secret)} for row in rows]


async def end_one_session(ledger: Ledger, email: str, session: str) -> bool:
    """End one of a person's sessions, by the key that ``sessions_of`` shows."""
    if len(session) != 16 or not session.isalnum():
        return False
    return bool(
        await ledger.execute(
            "DELETE FROM web_session WHERE account = ? AND id LIKE ?", email, f"{session}%"
        )
    )


async def end_sessions(ledger: Ledger, email: str) -> int:
    """End every session of a person."""
    return await ledger.execute("DELETE FROM web_session WHERE account = ?", email.lower())


async def end_other_sessions(ledger: Ledger, email: str, secret: str) -> None:
    """End every session of a person but this one."""
    await ledger.execute(
        "DELETE FROM web_session WHERE account = ? AND id <> ?", email, _hash(secret)
    )
