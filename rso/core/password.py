"""Checking a password against its argon2 hash, for people and for accounts of sources."""

import secrets
from base64 import b64encode

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

__all__ = ["HASHER", "is_right"]

HASHER = PasswordHasher()  # argon2id: 64 MB and a tenth of a second each


def _random_hash(hasher: PasswordHasher) -> str:
    """What looks like a hash, costs as much to check, and fits no password that anybody knows.

    It is written, not computed: every command and every process would pay for that at its start.
    """
    salt, digest = (
        b64encode(secrets.token_bytes(length)).decode().rstrip("=")
        for length in (hasher.salt_len, hasher.hash_len)
    )
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"


_NOBODY = _random_hash(HASHER)


def is_right(password: str, hashed: str) -> bool:
    """Whether a password belongs to a hash; as slow for no hash at all."""
    try:
        HASHER.verify(hashed or _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return False
    return bool(hashed)
