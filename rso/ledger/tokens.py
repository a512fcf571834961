"""API tokens of people and of sources; of a token only a hash is stored."""

import secrets
from datetime import timedelta
from hashlib import sha256
from typing import Any

from rso.core.errors import ConfigError
from rso.ledger import audit, site_tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id
from rso.ledger.people import Person, person_of

__all__ = [
    "create_token",
    "find_source_token",
    "find_token",
    "revoke_token",
    "revoke_tokens_of",
    "tokens",
]

_COLUMNS = "id, account, source, name, created_at, last_used_at, revoked_at"


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


async def create_token(ledger: Ledger, *, email: str = "", source: str = "", name: str = "") -> str:
    """Make an API token for a person, or for a source of the channel ``http_upload``.

    Returns:
        The token; it cannot be read again.

    Raises:
        ConfigError: No such person or source.
    """
    email = email.lower()
    if email and not await ledger.fetch("SELECT id FROM user_account WHERE email = ?", email):
        raise ConfigError(f"no user has the address {email}")
    if source and not await ledger.fetch(
        "SELECT id FROM source WHERE channel = 'http_upload' AND identity = ?", source
    ):
        raise ConfigError(f"no source of channel http_upload is called {source}")
    if bool(email) == bool(source):
        raise ConfigError("a token is a person's or a source's")
    token = f"rso_{secrets.token_urlsafe(32)}"
    await ledger.insert_rows(
        site_tables.ApiToken,
        [
            {
                "id": new_id(),
                "token_hash": _hash(token),
                "account": email,
                "source": source,
                "name": name[:100],
                "created_at": now(),
            }
        ],
    )
    return token


async def find_token(ledger: Ledger, token: str) -> Person | None:
    """The person an API token stands for."""
    rows = await ledger.fetch(
        "SELECT u.*, t.id AS token, t.last_used_at FROM api_token t"
        " JOIN user_account u ON u.email = t.account"
        " WHERE t.token_hash = ? AND t.revoked_at IS NULL AND NOT u.disabled",
        _hash(token),
    )
    if not rows:
        return None
    await _note_use(ledger, rows[0])
    return person_of(rows[0])


async def find_source_token(ledger: Ledger, token: str) -> str | None:
    """The identity of the source that an API token stands for."""
    rows = await ledger.fetch(
        "SELECT id AS token, source, last_used_at FROM api_token"
        " WHERE token_hash = ? AND revoked_at IS NULL AND source <> ''",
        _hash(token),
    )
    if not rows:
        return None
    await _note_use(ledger, rows[0])
    return str(rows[0]["source"])


async def _note_use(ledger: Ledger, row: dict[str, Any]) -> None:
    last = row["last_used_at"]
    if last is None or now() - last > timedelta(minutes=1):  # not a write for each request
        await ledger.execute(
            "UPDATE api_token SET last_used_at = ? WHERE id = ?", now(), row["token"]
        )


async def tokens(ledger: Ledger, *, email: str = "") -> list[dict[str, Any]]:
    """Tokens in use, without their secrets: a person's, or everybody's and every source's."""
    where, values = ("account = ?", [email.lower()]) if email else ("1 = 1", [])
    return await ledger.fetch(
        f"SELECT {_COLUMNS} FROM api_token WHERE {where} AND revoked_at IS NULL"  # noqa: S608
        " ORDER BY created_at",
        *values,
    )


async def revoke_token(ledger: Ledger, token_id: str, *, email: str = "") -> bool:
    """End a token; with ``email`` only if it is that person's."""
    where, values = (" AND account = ?", [email.lower()]) if email else ("", [])
    return bool(
        await ledger.execute(
            "UPDATE api_token SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"  # noqa: S608
            f"{where}",
            now(),
            token_id,
            *values,
        )
    )


async def revoke_tokens_of(ledger: Ledger, email: str, *, actor: str) -> int:
    """End every token of a person, audited; how many there were."""
    email = email.lower()
    ended = await ledger.execute(
        "UPDATE api_token SET revoked_at = ? WHERE account = ? AND revoked_at IS NULL",
        now(),
        email,
    )
    if ended:
        facts = {"person": email, "tokens": str(ended)}
        await audit.append(ledger, actor=actor, action="tokens ended", facts=facts)
    return ended
