"""Sessions of the web application; of what a cookie holds only a hash is stored."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from rso.ledger import tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger
from rso.ledger.people import Person, person_of

__all__ = [
    "begin_pending",
    "create_session",
    "end_other_sessions",
    "end_session",
    "find_pending",
    "find_session",
    "open_sessions",
    "session_key",
    "sessions_of",
]

_SESSION = timedelta(hours=12)
_IDLE = timedelta(minutes=30)
_PENDING = "pending"  # in place of a CSRF token: not a session yet
_PENDING_TIME = timedelta(minutes=5)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


async def create_session(ledger: Ledger, person: Person) -> str:
    """Begin a session; returns what the cookie holds, of which only a hash is stored."""
    secret, at = secrets.token_urlsafe(32), now()
    await ledger.insert_rows(
        tables.Session,
        [
            {
                "id": _hash(secret),
                "account": person.email,
                "data": secrets.token_urlsafe(24),  # the CSRF token
                "created_at": at,
                "seen_at": at,
                "expires_at": at + _SESSION,
            }
        ],
    )
    return secret


async def find_session(
    ledger: Ledger, secret: str, *, touch: bool = True
) -> tuple[Person, str] | None:
    """The person and the CSRF token of a session that is neither idle nor over.

    ``touch`` says that a person is behind the request: it keeps the session from falling idle.
    """
    at = now()
    rows = await ledger.fetch(
        "SELECT s.id AS session, s.data, s.seen_at, u.* FROM web_session s JOIN user_account u"
        " ON u.email = s.account WHERE s.id = ? AND s.expires_at > ? AND s.seen_at > ?"
        " AND s.data <> ? AND NOT u.disabled",
        _hash(secret),
        at,
        at - _IDLE,
        _PENDING,
    )
    if not rows:
        return None
    seen: datetime = rows[0]["seen_at"]
    if touch and at - seen > timedelta(minutes=1):  # not a write for each request
        await ledger.execute(
            "UPDATE web_session SET seen_at = ? WHERE id = ?", at, rows[0]["session"]
        )
    return person_of(rows[0]), rows[0]["data"]


def session_key(secret: str) -> str:
    """The key of a session, from which the cookie cannot be made again."""
    return _hash(secret)


async def open_sessions(ledger: Ledger, keys: Sequence[str]) -> dict[str, Person]:
    """Which of these sessions are neither idle nor over, and whose; nobody's is kept awake."""
    at = now()
    marks = ",".join("?" * len(keys)) or "NULL"
    rows = await ledger.fetch(
        "SELECT s.id AS session, u.* FROM web_session s JOIN user_account u ON u.email ="  # noqa: S608
        f" s.account WHERE s.id IN ({marks}) AND s.expires_at > ? AND s.seen_at > ?"
        " AND s.data <> ? AND NOT u.disabled",
        *keys,
        at,
        at - _IDLE,
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
        tables.Session,
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


async def sessions_of(ledger: Ledger, email: str) -> list[dict[str, Any]]:
    """A person's open sessions."""
    return await ledger.fetch(
        "SELECT created_at, seen_at FROM web_session WHERE account = ? AND data <> ?"
        " AND expires_at > ? AND seen_at > ? ORDER BY created_at",
        email,
        _PENDING,
        now(),
        now() - _IDLE,
    )


async def end_other_sessions(ledger: Ledger, email: str, secret: str) -> None:
    """End every session of a person but this one."""
    await ledger.execute(
        "DELETE FROM web_session WHERE account = ? AND id <> ?", email, _hash(secret)
    )
