"""Changing the site: what page and API do alike, as ``rso load`` does."""

from collections.abc import Mapping
from typing import Any

from rso.engine.context import Engine
from rso.engine.snapshot import write_snapshot
from rso.ledger import audit
from rso.ledger.site import load_site
from rso.ledger.site_preview import preview_site

__all__ = ["apply_site", "renew_sources"]


async def apply_site(engine: Engine, document: Mapping[str, Any], *, actor: str) -> dict[str, Any]:
    """Load a document, note in the audit what changed, and tell the receivers.

    Raises:
        ConfigError: The document is wrong; nothing has changed.
    """
    ledger = engine.ledger
    changes = (await preview_site(ledger, document)).changes
    async with ledger.transaction():
        summary = await load_site(ledger, document)
        for change in changes:
            facts = {"kind": change.kind, "key": change.key, "fields": " ".join(change.fields)}
            await audit.append(ledger, actor=actor, action="site changed", facts=facts)
    await renew_sources(engine)
    return summary


async def renew_sources(engine: Engine) -> None:
    """Write the sources where receivers read them."""
    await write_snapshot(engine.ledger, engine.settings.data_dir / "snapshot" / "sources.json")
