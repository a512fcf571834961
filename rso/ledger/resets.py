"""Links that set a new password: each good once, for an hour; only a hash is stored."""

import secrets
from datetime import timedelta
from hashlib import sha256

from rso.ledger import audit, site_tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id
from rso.ledger.people import hash_new
from rso.ledger.tokens import revoke_tokens_of

__all__ = ["begin_reset", "is_reset", "reset_password"]

_TIME = timedelta(hours=1)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


async def begin_reset(ledger: Ledger, email: str) -> str | None:
    """The secret part of a link for a person who may sign in; ``None`` for nobody."""
    email = email.strip().lower()[:254]
    if not await ledger.fetch(
        "SELECT id FROM user_account WHERE email = ? AND NOT disabled", email
    ):
        return None
    secret, at = secrets.token_urlsafe(32), now()
    await ledger.insert_rows(
        site_tables.PasswordReset,
        [
            {
                "id": new_id(),
                "token_hash": _hash(secret),
                "account": email,
                "created_at": at,
                "expires_at": at + _TIME,
                "used_at": None,
            }
        ],
    )
    await audit.append(ledger, actor=email, action="password reset asked")
    return secret


async def is_reset(ledger: Ledger, secret: str) -> bool:
    """Whether a link is still good; looking does not use it up."""
    return bool(
        await ledger.fetch(
            "SELECT id FROM password_reset WHERE token_hash = ? AND used_at IS NULL"
            " AND expires_at > ?",
            _hash(secret),
            now(),
        )
    )


async def reset_password(ledger: Ledger, secret: str, new: str) -> bool:
    """Set a new password, end every session, API token and other link; the second factor stays."""
    if not await is_reset(ledger, secret):
        return False
    hashed = await hash_new(new)
    async with ledger.transaction():
        rows = await ledger.fetch(
            "UPDATE password_reset SET used_at = ? WHERE token_hash = ? AND used_at IS NULL"
            " AND expires_at > ? RETURNING account",
            now(),
            _hash(secret),
            now(),
        )
        if not rows:
            return False
        account = rows[0]["account"]
        changed = await ledger.execute(
            "UPDATE user_account SET password_hash = ? WHERE email = ? AND NOT disabled",
            hashed,
            account,
        )
        await ledger.execute("DELETE FROM web_session WHERE account = ?", account)
        await ledger.execute(
            "UPDATE password_reset SET used_at = ? WHERE account = ? AND used_at IS NULL",
            now(),
            account,
        )
        if changed:
            await audit.append(ledger, actor=account, action="password reset")
            await revoke_tokens_of(ledger, account, actor=account)
    return bool(changed)
