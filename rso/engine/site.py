"""Changing the site: what page and API do alike, as ``rso load`` does."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from msgspec import structs

from rso.core.errors import ConfigError
from rso.engine.context import Engine
from rso.engine.snapshot import write_snapshot
from rso.ledger import audit
from rso.ledger.sessions import end_sessions
from rso.ledger.site import load_site
from rso.ledger.site_document import SiteDocument
from rso.ledger.site_passwords import seal_passwords, short_passwords
from rso.ledger.site_preview import SitePreview, preview_site
from rso.ledger.tokens import revoke_tokens_of
from rso.plugins.config import decode_options

__all__ = ["apply_site", "check_plugged", "plan_site", "renew_sources"]

log = structlog.get_logger(__name__)


def check_plugged(engine: Engine, document: Mapping[str, Any]) -> list[str]:
    """Look at what only the installed plugins know: options of destinations, channels of sources.

    Returns:
        Warnings in words: a plugin may be installed later.

    Raises:
        ConfigError: An installed sender refuses a destination's options.
    """
    try:
        site = msgspec.convert(document, SiteDocument)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"site.toml: {exc}") from exc
    warnings = []
    for destination in [d for r in site.radiologist for d in r.destinations]:
        whose = f"destination {destination.code}"
        if destination.sender in engine.plugins.senders:
            sender, _ = engine.plugins.senders[destination.sender]
            decode_options(sender.options_type, destination.options, whose)
        else:
            warnings.append(f"{whose}: no sender in use is called {destination.sender}")
    for facility in site.facility:
        warnings += [
            f"source {source.channel}/{source.identity} of {facility.code}:"
            f" no plugin in use is called {source.channel}"
            for source in facility.sources
            if source.channel not in engine.plugins.config_types
        ]
    return warnings


async def plan_site(engine: Engine, document: Mapping[str, Any]) -> SitePreview:
    """Check a document as ``apply_site`` does, and say what it would change; nothing changes.

    Raises:
        ConfigError: The document is wrong.
    """
    warnings = [*check_plugged(engine, document), *short_passwords(document)]
    preview = await preview_site(engine.ledger, await seal_passwords(engine.ledger, document))
    return structs.replace(preview, warnings=[*preview.warnings, *warnings])


async def apply_site(engine: Engine, document: Mapping[str, Any], *, actor: str) -> dict[str, Any]:
    """Load a document, note in the audit what changed, and tell the receivers.

    Somebody else's new password ends that person's sessions and API tokens.

    Raises:
        ConfigError: The document is wrong; nothing has changed.
    """
    ledger = engine.ledger
    warnings = [*check_plugged(engine, document), *short_passwords(document)]
    document = await seal_passwords(ledger, document)
    changes = (await preview_site(ledger, document)).changes
    async with ledger.transaction():
        summary = await load_site(ledger, document)
        for change in changes:
            facts = {"kind": change.kind, "key": change.key, "fields": " ".join(change.fields)}
            if change.kind == "user" and "password" in change.fields and change.key != actor:
                await end_sessions(ledger, change.key)
                await revoke_tokens_of(ledger, change.key, actor=actor)
            await audit.append(ledger, actor=actor, action="site changed", facts=facts)
    warnings += await renew_sources(engine)
    return {**summary, "warnings": [*summary["warnings"], *warnings]}


async def renew_sources(engine: Engine) -> list[str]:
    """Write the sources where receivers read them; returns why not, while ``work`` tries again."""
    path = engine.settings.data_dir / "snapshot" / "sources.json"
    try:
        await write_snapshot(engine.ledger, path)
    except OSError as exc:
        log.error("sources could not be written", reason=exc.strerror)
        return [f"receivers do not know yet: {path} cannot be written: {exc.strerror}"]
    return []
