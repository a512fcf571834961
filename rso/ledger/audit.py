"""The audit: append-only, each entry bound to the one before by a hash."""

from collections.abc import Mapping
from hashlib import sha256

import msgspec

from rso.ledger.exams import now
from rso.ledger.ledger import Ledger
from rso.ledger.tables import AuditEntry

__all__ = ["EVENTS", "SIGHTINGS", "append", "verify"]

# Somebody looked, and nothing happened: no exam's last event, and nobody's work on it.
SIGHTINGS = ("exam opened", "hold opened", "worksheet opened")
# What happened to an exam; the words of the index of m0031_sightings.
EVENTS = f"exam <> '' AND action NOT IN {SIGHTINGS}"

_FIRST = "0" * 64


def _hash(fields: list[str]) -> str:
    return sha256(msgspec.json.encode(fields)).hexdigest()


async def append(
    ledger: Ledger,
    *,
    actor: str,
    action: str,
    facility: str = "",
    exam: str = "",
    facts: Mapping[str, str] | None = None,
) -> None:
    """Add an entry; facts hold no patient data."""
    at = now()
    text = msgspec.json.encode(dict(facts or {})).decode()
    async with ledger.transaction():
        if ledger.kind == "postgres":
            await ledger.execute("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE")
        last = await ledger.fetch("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
        number, previous = (last[0]["id"] + 1, last[0]["hash"]) if last else (1, _FIRST)
        fields = [str(number), at.isoformat(), actor, action, facility, exam, text, previous]
        await ledger.insert_rows(
            AuditEntry,
            [
                {
                    "id": number,
                    "at": at,
                    "actor": actor,
                    "action": action,
                    "facility": facility,
                    "exam": exam,
                    "facts": text,
                    "previous": previous,
                    "hash": _hash(fields),
                }
            ],
        )


async def verify(ledger: Ledger) -> int | None:
    """The number of the first entry that was changed or is missing; ``None`` when all is well."""
    previous = _FIRST
    for number, row in enumerate(await ledger.fetch("SELECT * FROM audit ORDER BY id"), 1):
        fields = [
            str(row["id"]),
            row["at"].isoformat(),
            row["actor"],
            row["action"],
            row["facility"],
            row["exam"],
            row["facts"],
            previous,
        ]
        if row["id"] != number or row["previous"] != previous or row["hash"] != _hash(fields):
            return number
        previous = row["hash"]
    return None
