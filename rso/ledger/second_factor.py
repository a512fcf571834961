"""The second factor: time-based codes (RFC 6238), each good once, and codes for a lost phone."""

import secrets
from hashlib import sha256
from typing import Any

import msgspec
import pyotp

from rso.ledger.exams import now
from rso.ledger.ledger import Ledger

__all__ = [
    "begin_totp",
    "check_totp",
    "confirm_totp",
    "end_totp",
    "has_totp",
    "provisioning_uri",
]

_STEP = 30
_RECOVERY_CODES = 8
# The letters before a secret that is not confirmed yet: it asks nobody for a code.
_OPEN = "open:"


async def _row(ledger: Ledger, email: str) -> dict[str, Any]:
    rows = await ledger.fetch(
        "SELECT totp_secret, totp_last_step, recovery_codes FROM user_account WHERE email = ?",
        email.lower(),
    )
    return rows[0] if rows else {"totp_secret": "", "totp_last_step": 0, "recovery_codes": "[]"}


async def has_totp(ledger: Ledger, email: str) -> bool:
    """Whether signing in asks for a code."""
    secret = (await _row(ledger, email))["totp_secret"]
    return bool(secret) and not secret.startswith(_OPEN)


async def begin_totp(ledger: Ledger, email: str, *, keep: bool = False) -> str:
    """A secret to enrol with; signing in stays as it is until a code of it is confirmed.

    It is a fresh one, and the only one that counts: who read an earlier one has nothing. With
    ``keep`` it is the one that was shown last, so that a mistyped code can be typed again.
    """
    row = await _row(ledger, email)
    if keep and row["totp_secret"].startswith(_OPEN):
        return str(row["totp_secret"].removeprefix(_OPEN))
    secret = pyotp.random_base32()
    await ledger.execute(
        "UPDATE user_account SET totp_secret = ? WHERE email = ? AND (totp_secret = ''"
        " OR totp_secret LIKE ?)",
        f"{_OPEN}{secret}",
        email.lower(),
        f"{_OPEN}%",
    )
    return secret


def provisioning_uri(secret: str, email: str, site: str) -> str:
    """What the QR code of the enrolment says."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=site)


def _step_of(secret: str, code: str, after: int) -> int | None:
    """The time step of a right code that is younger than ``after``; one step of drift is let go."""
    current = int(now().timestamp()) // _STEP
    plain = code.replace(" ", "")
    for step in (current - 1, current, current + 1):
        right = pyotp.TOTP(secret).at(step * _STEP)
        if secrets.compare_digest(right, plain.encode("ascii", "replace").decode()):
            return step if step > after else None
    return None


async def confirm_totp(ledger: Ledger, email: str, code: str) -> list[str] | None:
    """Begin to ask for codes; returns the recovery codes, shown this once, or ``None``."""
    row = await _row(ledger, email)
    if not row["totp_secret"].startswith(_OPEN):
        return None
    secret = row["totp_secret"].removeprefix(_OPEN)
    step = _step_of(secret, code, 0)
    if step is None:
        return None
    codes = [f"{secrets.randbelow(10**10):010}" for _ in range(_RECOVERY_CODES)]
    hashes = [sha256(code.encode()).hexdigest() for code in codes]
    await ledger.execute(
        "UPDATE user_account SET totp_secret = ?, totp_last_step = ?, recovery_codes = ?"
        " WHERE email = ?",
        secret,
        step,
        msgspec.json.encode(hashes).decode(),
        email.lower(),
    )
    return codes


async def check_totp(ledger: Ledger, email: str, code: str) -> bool:
    """Whether a code is right; a code and a recovery code are each good once."""
    email = email.lower()
    async with ledger.transaction():
        row = await _row(ledger, email)
        if not row["totp_secret"] or row["totp_secret"].startswith(_OPEN):
            return False  # nothing to be right about
        step = _step_of(row["totp_secret"], code, row["totp_last_step"])
        if step is not None:
            done = await ledger.fetch(
                "UPDATE user_account SET totp_last_step = ? WHERE email = ?"
                " AND totp_last_step < ? RETURNING email",
                step,
                email,
                step,
            )
            return bool(done)
        hashes: list[str] = msgspec.json.decode(row["recovery_codes"])
        given = sha256(code.strip().encode()).hexdigest()
        if given not in hashes:
            return False
        hashes.remove(given)
        await ledger.execute(
            "UPDATE user_account SET recovery_codes = ? WHERE email = ?",
            msgspec.json.encode(hashes).decode(),
            email,
        )
    return True


async def end_totp(ledger: Ledger, email: str) -> None:
    """Ask for codes no more."""
    await ledger.execute(
        "UPDATE user_account SET totp_secret = '', totp_last_step = 0, recovery_codes = '[]'"
        " WHERE email = ?",
        email.lower(),
    )
