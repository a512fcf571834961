"""Facilities, sources, radiologists, destinations and people: loaded and listed."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rso.core.errors import ConfigError
from rso.core.notifying import EVENTS, parse_quiet
from rso.core.on_call import check_on_call
from rso.core.quota import Quota
from rso.core.source import check_sources
from rso.core.transport import Kind, Source
from rso.ledger import site_tables
from rso.ledger.exams import now
from rso.ledger.ledger import Ledger, new_id
from rso.ledger.on_call import on_call_warnings
from rso.ledger.people import hash_password, upsert_user
from rso.ledger.site_document import (
    ContactEntry,
    FacilityEntry,
    RadiologistEntry,
    SiteDocument,
    SourceEntry,
    UserEntry,
)

__all__ = [
    "CONSENT",
    "all_sources",
    "facility_quotas",
    "last_images",
    "load_site",
    "lock_site",
]

_SITE_LOCK = 0x52534F53  # "RSOS"
CONSENT = {None: "", True: "yes", False: "no"}


async def lock_site(ledger: Ledger) -> None:
    """One change of the site after the other; first in its transaction, before what it reads."""
    if ledger.kind == "postgres":  # on SQLite a transaction is the only writer anyway
        await ledger.fetch("SELECT pg_advisory_xact_lock(?)", _SITE_LOCK)


async def load_site(ledger: Ledger, document: Mapping[str, Any]) -> dict[str, Any]:
    """Add and change what the document names; the rest stays. Idempotent.

    Whoever calls it within a transaction lets ``seal_passwords`` hash before that begins.

    Returns:
        How many of each kind, and ``warnings`` in words.

    Raises:
        ConfigError: The document is wrong, or two sources cannot be told apart.
    """
    try:
        site = msgspec.convert(document, SiteDocument)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"site.toml: {exc}") from exc
    async with ledger.transaction():
        await lock_site(ledger)
        for radiologist in site.radiologist:
            await _load_radiologist(ledger, radiologist)
        for facility in site.facility:
            await _load_facility(ledger, facility)
        for user in site.user:
            await _load_user(ledger, user)
        if problems := check_sources(await all_sources(ledger)):
            raise ConfigError("; ".join(problems))
        warnings = await _check(ledger)
    return {
        "facilities": len(site.facility),
        "radiologists": len(site.radiologist),
        "users": len(site.user),
        "warnings": warnings,
    }


async def _upsert(
    ledger: Ledger, table: Any, key: str, values: Mapping[str, Any], fixed: Mapping[str, Any]
) -> None:
    """Insert a row, or change the one with the same unique key."""
    await ledger.insert_rows(table, [{"id": new_id(), **values, **fixed}], on_conflict="nothing")
    names = [name for name in values if name != key]
    assignments = ", ".join(f"{name} = ?" for name in names)
    await ledger.execute(
        f"UPDATE {table._meta.tablename} SET {assignments} WHERE {key} = ?",  # noqa: S608
        *[values[name] for name in names],
        values[key],
    )


async def _load_radiologist(ledger: Ledger, entry: RadiologistEntry) -> None:
    await _upsert(
        ledger, site_tables.Radiologist, "code", {"code": entry.code, "name": entry.name}, {}
    )
    for destination in entry.destinations:
        await _upsert(
            ledger,
            site_tables.Destination,
            "code",
            {
                "code": destination.code,
                "radiologist": entry.code,
                "sender": destination.sender,
                "egress": destination.egress,
                "options": msgspec.json.encode(destination.options).decode(),
            },
            {"paused": False, "failures": 0, "open_until": None, "last_success_at": None,
             "last_error": ""},
        )  # fmt: skip
    # One that is no longer named goes only when nothing waits for it.
    keep = [d.code for d in entry.destinations]
    marks = ",".join("?" * len(keep)) or "''"
    await ledger.execute(
        f"DELETE FROM destination WHERE radiologist = ? AND code NOT IN ({marks})"  # noqa: S608
        " AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.destination = destination.code"
        " AND d.state <> 'delivered')",
        entry.code,
        *keep,
    )
    await _load_contacts(ledger, "radiologist", entry.code, entry.contacts)


async def _load_contacts(
    ledger: Ledger, kind: str, owner: str, contacts: Sequence[ContactEntry]
) -> None:
    for position, contact in enumerate(contacts):
        parse_quiet(contact.quiet, contact.timezone)
        if unknown := sorted(set(contact.events) - set(EVENTS)):
            raise ConfigError(f"contact of {owner}: no event is called {unknown[0]}")
        wanted = {
            "events": " ".join(contact.events),
            "quiet": contact.quiet,
            "timezone": contact.timezone,
            "breaks_quiet": CONSENT[contact.breaks_quiet],
            "position": position,
        }
        # Who writes site.toml vouches for its addresses.
        added = await ledger.insert_rows(
            site_tables.Contact,
            [
                {
                    "id": new_id(),
                    "owner_kind": kind,
                    "owner": owner,
                    "channel": contact.channel,
                    "address": contact.address,
                    "verified_at": now(),
                    "opted_out": False,
                    "leave_key": secrets.token_urlsafe(24),
                    **wanted,
                }
            ],
            on_conflict="nothing",
        )
        if not added:
            await ledger.execute(
                "UPDATE contact SET events = ?, quiet = ?, timezone = ?, breaks_quiet = ?,"
                " position = ?"
                " WHERE owner_kind = ? AND owner = ? AND channel = ? AND address = ?",
                *wanted.values(),
                kind,
                owner,
                contact.channel,
                contact.address,
            )


async def _load_facility(ledger: Ledger, entry: FacilityEntry) -> None:
    rows = await ledger.fetch("SELECT settings FROM facility WHERE code = ?", entry.code)
    settings: dict[str, Any] = msgspec.json.decode(rows[0]["settings"]) if rows else {}
    said = {
        "settle_seconds": entry.settle_seconds,
        "allow_empty_demographics": entry.allow_empty_demographics or None,
        "retention_days": entry.retention_days,
        "turnaround": msgspec.to_builtins(entry.turnaround) or None,
        "quota": msgspec.to_builtins(entry.quota) or None,
        "on_call": msgspec.to_builtins(entry.on_call) or None,
        "escalate_minutes": entry.escalate_minutes,
    }
    check_on_call(entry.on_call)
    # What the document does not speak of stays.
    settings = {k: v for k, v in (settings | said).items() if v is not None}
    await _upsert(
        ledger,
        site_tables.Facility,
        "code",
        {
            "code": entry.code,
            "name": entry.name,
            "issuer_of_patient_id": entry.issuer_of_patient_id,
            "settings": msgspec.json.encode(settings).decode(),
        },
        {},
    )
    before = {
        (row["channel"], row["identity"], row["called_ae_title"]): row
        for row in await ledger.fetch("SELECT * FROM source WHERE facility = ?", entry.code)
    }
    await ledger.execute("DELETE FROM source WHERE facility = ?", entry.code)
    for source in entry.sources:
        old = before.get((source.channel, source.identity, source.called_ae_title))
        await _insert_source(ledger, entry.code, source, old)
    await ledger.execute("DELETE FROM attachment WHERE facility = ?", entry.code)
    await ledger.insert_rows(
        site_tables.Attachment,
        [
            {
                "id": new_id(),
                "facility": entry.code,
                "radiologist": attachment.code,
                "conditions": msgspec.json.encode(attachment.conditions).decode(),
            }
            for attachment in entry.radiologists
        ],
    )


async def _insert_source(
    ledger: Ledger, facility: str, source: SourceEntry, old: Mapping[str, Any] | None
) -> None:
    await ledger.insert_rows(
        site_tables.Source,
        [
            {
                "id": new_id(),
                "facility": facility,
                "channel": source.channel,
                "identity": source.identity,
                "kind": source.kind.value,
                "networks": msgspec.json.encode(source.networks).decode(),
                "certificate_fingerprint": source.certificate_fingerprint,
                "called_ae_title": source.called_ae_title,
                "password_hash": await hash_password(
                    source.password, old["password_hash"] if old else ""
                ),
                "cleartext": source.cleartext,
                "certificate": source.certificate.strip(),
                "quota": msgspec.json.encode(source.quota).decode(),
                "last_instance_at": old["last_instance_at"] if old else None,
            }
        ],
    )


async def _load_user(ledger: Ledger, entry: UserEntry) -> None:
    known = {row["code"] for row in await ledger.fetch("SELECT code FROM facility")}
    if unknown := sorted(set(entry.facilities) - known):
        raise ConfigError(f"user {entry.email}: no facility has the code {unknown[0]}")
    await upsert_user(
        ledger,
        email=entry.email,
        name=entry.name,
        role=entry.role,
        facilities=entry.facilities,
        password=entry.password,
    )
    await _load_contacts(ledger, "user", entry.email.lower(), entry.contacts)


async def _check(ledger: Ledger) -> list[str]:
    warnings = await on_call_warnings(ledger)
    for row in await ledger.fetch(
        "SELECT a.facility, a.radiologist FROM attachment a LEFT JOIN radiologist r"
        " ON r.code = a.radiologist WHERE r.code IS NULL"
    ):
        raise ConfigError(
            f"facility {row['facility']}: no radiologist has the code {row['radiologist']}"
        )
    for row in await ledger.fetch(
        "SELECT d.code FROM destination d JOIN attachment a ON a.radiologist = d.radiologist"
        " WHERE d.egress = 'passthrough' GROUP BY d.code HAVING count(DISTINCT a.facility) > 1"
    ):
        warnings.append(
            f"destination {row['code']} serves several facilities with egress passthrough:"
            " their Patient IDs may collide"
        )
    return warnings


async def all_sources(ledger: Ledger) -> list[Source]:
    """Every declared source."""
    rows = await ledger.fetch("SELECT * FROM source ORDER BY facility, channel, identity, id")
    return [
        Source(
            facility=row["facility"],
            channel=row["channel"],
            identity=row["identity"],
            kind=Kind(row["kind"]),
            networks=tuple(msgspec.json.decode(row["networks"])),
            certificate_fingerprint=row["certificate_fingerprint"],
            called_ae_title=row["called_ae_title"],
            password_hash=row["password_hash"],
            cleartext=bool(row["cleartext"]),
            certificate=row["certificate"],
            quota=msgspec.json.decode(row["quota"], type=Quota),
        )
        for row in rows
    ]


async def facility_quotas(ledger: Ledger) -> dict[str, Quota]:
    """The quotas of the facilities that have one, by code."""
    rows = await ledger.fetch("SELECT code, settings FROM facility ORDER BY code")
    found = {
        row["code"]: msgspec.convert(msgspec.json.decode(row["settings"]).get("quota") or {}, Quota)
        for row in rows
    }
    return {code: quota for code, quota in found.items() if quota != Quota()}


async def last_images(ledger: Ledger) -> dict[tuple[str, str, str], Any]:
    """When each source (facility, channel, identity) last sent an image."""
    rows = await ledger.fetch("SELECT facility, channel, identity, last_instance_at FROM source")
    return {
        (row["facility"], row["channel"], row["identity"]): row["last_instance_at"] for row in rows
    }
