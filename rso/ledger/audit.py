"""The audit: append-only, each entry bound to the one before by a hash."""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

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
_CHUNK = 2000  # entries in memory, some 2 MB


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
    actor, action, facility = actor[:254], action[:64], facility[:64]
    text = msgspec.json.encode(dict(facts or {})).decode()
    async with ledger.transaction():
        if ledger.kind == "postgres":
            await ledger.execute("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE")
        at = now()  # not earlier: who waits here comes later, and entries follow one another
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
    """The number of the first entry that was changed or is missing; ``None`` when all is well.

    A part at a time and beside the event loop, so that a long audit keeps nobody waiting.
    """
    number, previous, last = 1, _FIRST, -(2**63)
    while rows := await ledger.fetch(
        "SELECT * FROM audit WHERE id > ? ORDER BY id LIMIT ?", last, _CHUNK
    ):
        broken = await asyncio.to_thread(_first_broken, rows, number, previous)
        if broken is not None:
            return broken
        number, previous, last = number + len(rows), rows[-1]["hash"], rows[-1]["id"]
    return None


def _first_broken(rows: Sequence[Mapping[str, Any]], first: int, previous: str) -> int | None:
    for number, row in enumerate(rows, first):
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
