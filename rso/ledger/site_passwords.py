"""The passwords of a site document, hashed before any transaction begins.

That takes a tenth of a second each, and longer where others hash too: nobody waits for the
database meanwhile.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import structs

from rso.core.errors import ConfigError
from rso.ledger.ledger import Ledger
from rso.ledger.people import SHORTEST_PASSWORD, hash_password
from rso.ledger.site_document import FacilityEntry, SiteDocument, SourceEntry, UserEntry

__all__ = ["seal_passwords", "short_passwords"]


async def seal_passwords(ledger: Ledger, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with hashes for its passwords; one that has not changed keeps its hash.

    Raises:
        ConfigError: The document is wrong.
    """
    site = _read(document)
    rows = await ledger.fetch("SELECT email, password_hash FROM user_account")
    people = {row["email"]: row["password_hash"] for row in rows}
    rows = await ledger.fetch("SELECT * FROM source")
    sources = {
        (row["facility"], row["channel"], row["identity"], row["called_ae_title"]): row[
            "password_hash"
        ]
        for row in rows
    }

    async def user(entry: UserEntry) -> UserEntry:
        old = people.get(entry.email.lower(), "")
        return structs.replace(entry, password=await _sealed(entry.password, old))

    async def source(facility: str, entry: SourceEntry) -> SourceEntry:
        old = sources.get((facility, entry.channel, entry.identity, entry.called_ae_title), "")
        return structs.replace(entry, password=await _sealed(entry.password, old))

    async def facility(entry: FacilityEntry) -> FacilityEntry:
        found = [await source(entry.code, own) for own in entry.sources]
        return structs.replace(entry, sources=found)

    made = structs.replace(
        site,
        facility=[await facility(entry) for entry in site.facility],
        user=[await user(entry) for entry in site.user],
    )
    sealed: dict[str, Any] = msgspec.to_builtins(made)
    return sealed


async def _sealed(password: str, old: str) -> str:
    # An empty one stays empty: what it keeps is looked up when the document is loaded.
    return await hash_password(password, old) if password else ""


def short_passwords(document: Mapping[str, Any]) -> Sequence[str]:
    """Warnings: who writes a document has the machine, and is told; forms and the API refuse.

    Raises:
        ConfigError: The document is wrong.
    """
    return [
        f"user {user.email}: the password has less than {SHORTEST_PASSWORD} characters"
        for user in _read(document).user
        if 0 < len(user.password) < SHORTEST_PASSWORD
    ]


def _read(document: Mapping[str, Any]) -> SiteDocument:
    try:
        return msgspec.convert(document, SiteDocument)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"site.toml: {exc}") from exc
