"""Facilities, sources, radiologists, destinations and people as a document to load again."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from rso.core.on_call import OnCall
from rso.core.quota import Quota
from rso.ledger.ledger import Ledger
from rso.ledger.site import CONSENT, all_sources
from rso.ledger.site_document import (
    AttachmentEntry,
    ContactEntry,
    DestinationEntry,
    FacilityEntry,
    RadiologistEntry,
    SiteDocument,
    SourceEntry,
    TurnaroundEntry,
    UserEntry,
)

__all__ = ["export_site"]


async def export_site(ledger: Ledger) -> dict[str, Any]:
    """Everything as a document that ``load_site`` takes; hashes, never clear passwords."""
    site = SiteDocument(
        facility=[
            await _facility(ledger, row)
            for row in await ledger.fetch("SELECT * FROM facility ORDER BY code")
        ],
        radiologist=[
            RadiologistEntry(
                code=row["code"],
                name=row["name"],
                contacts=await _contacts(ledger, "radiologist", row["code"]),
                destinations=[
                    DestinationEntry(
                        code=d["code"],
                        sender=d["sender"],
                        egress=d["egress"],
                        options=msgspec.json.decode(d["options"]),
                    )
                    for d in await ledger.fetch(
                        "SELECT * FROM destination WHERE radiologist = ? ORDER BY code",
                        row["code"],
                    )
                ],
            )
            for row in await ledger.fetch("SELECT * FROM radiologist ORDER BY code")
        ],
        user=[
            UserEntry(
                email=row["email"],
                role=row["role"],
                name=row["name"],
                facilities=msgspec.json.decode(row["facilities"]),
                password=row["password_hash"],
                contacts=await _contacts(ledger, "user", row["email"]),
            )
            for row in await ledger.fetch("SELECT * FROM user_account ORDER BY email")
        ],
    )
    exported: dict[str, Any] = msgspec.to_builtins(site)
    return exported


async def _contacts(ledger: Ledger, kind: str, owner: str) -> list[ContactEntry]:
    rows = await ledger.fetch(
        "SELECT * FROM contact WHERE owner_kind = ? AND owner = ? AND verified_at IS NOT NULL"
        " ORDER BY position, id",
        kind,
        owner,
    )
    return [
        ContactEntry(
            channel=row["channel"],
            address=row["address"],
            events=tuple(row["events"].split()),
            quiet=row["quiet"],
            timezone=row["timezone"],
            breaks_quiet=next(k for k, word in CONSENT.items() if word == row["breaks_quiet"]),
        )
        for row in rows
    ]


async def _facility(ledger: Ledger, row: Mapping[str, Any]) -> FacilityEntry:
    settings = msgspec.json.decode(row["settings"])
    attachments = await ledger.fetch(
        "SELECT * FROM attachment WHERE facility = ? ORDER BY id", row["code"]
    )
    return FacilityEntry(
        code=row["code"],
        name=row["name"],
        issuer_of_patient_id=row["issuer_of_patient_id"],
        settle_seconds=settings.get("settle_seconds"),
        allow_empty_demographics=bool(settings.get("allow_empty_demographics")),
        retention_days=settings.get("retention_days"),
        turnaround=msgspec.convert(settings.get("turnaround") or {}, TurnaroundEntry),
        quota=msgspec.convert(settings.get("quota") or {}, Quota),
        on_call=msgspec.convert(settings.get("on_call") or [], list[OnCall]),
        escalate_minutes=settings.get("escalate_minutes"),
        sources=[
            SourceEntry(
                password=s.password_hash,
                networks=list(s.networks),
                **{
                    name: value
                    for name, value in structs.asdict(s).items()
                    if name not in {"facility", "password_hash", "networks"}
                },
            )
            for s in await all_sources(ledger)
            if s.facility == row["code"]
        ],
        radiologists=[
            AttachmentEntry(code=a["radiologist"], **msgspec.json.decode(a["conditions"]))
            for a in attachments
        ],
    )
