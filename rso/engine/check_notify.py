"""What ``rso check`` says of notifications: providers, templates, addresses, who is on call."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address

from rso.core.errors import RsoError
from rso.engine.check_port import Check
from rso.engine.context import Engine
from rso.engine.notice_check import template_problems
from rso.ledger.on_call import on_call_warnings

__all__ = ["check_notify"]


async def check_notify(engine: Engine) -> list[Check]:
    """One check a provider and its contacts; one for all templates, one for the lists."""
    checks = list(_links(engine))
    for name, (kind, config) in engine.plugins.notifiers.items():
        notifier = kind(config)
        health = await notifier.health()
        checks.append(Check(name=f"notifier {name}", ok=health.ok, detail=health.detail))
        wrong = 0
        for row in await engine.ledger.fetch(
            "SELECT address FROM contact WHERE channel = ? AND opted_out = ?", name, False
        ):
            try:
                notifier.check_address(row["address"])
            except RsoError:
                wrong += 1
        await notifier.close()
        detail = f"{wrong} addresses that {name} cannot use" if wrong else ""
        checks.append(Check(name=f"contacts {name}", ok=not wrong, detail=detail))
    checks.append(await asyncio.to_thread(_templates, engine))
    warnings = await on_call_warnings(engine.ledger)
    checks.append(Check(name="on call", ok=not warnings, detail="; ".join(warnings[:5])))
    return checks


def _links(engine: Engine) -> Iterator[Check]:
    """Addresses in messages must lead to RSO from where they are read, not from this machine."""
    settings = engine.settings
    if settings.site.base_url:
        return
    try:
        host = ip_address(settings.web.host)
    except ValueError:
        if settings.web.host != "localhost":
            return
        host = ip_address("127.0.0.1")
    messages = bool(engine.plugins.notifiers)
    if host.is_unspecified or (messages and host.is_loopback):
        yield Check(
            name="address of RSO",
            ok=not (messages and host.is_unspecified),
            warning=True,
            detail=f"links in messages are {settings.base_url}/…, which other machines"
            " cannot reach: set base_url in [site] to the address that people use",
        )


def _templates(engine: Engine) -> Check:
    """Every message can be written: a broken template is named here, and not at night."""
    broken = template_problems(engine.settings, sorted(engine.plugins.notifiers) or ["email"])
    detail = "; ".join(f"{b.language}/{b.file}: {b.problem}" for b in broken[:5])
    return Check(name="templates of messages", ok=not broken, detail=detail)
