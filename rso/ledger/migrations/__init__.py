"""Migrations: additive, written by hand, each run once on either engine.

A module ``m0002_what_it_adds.py`` holds ``SQL``; its name is its record in the database. What can
only be said in one engine's words stands beside it, as statements in ``SQLITE`` and ``POSTGRES``.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rso.ledger.ledger import Driver, Ledger

__all__ = ["migrate"]


async def migrate(ledger: "Ledger", driver: "Driver") -> None:
    """Run what has not been run yet, in the order of the names."""
    await driver.script("CREATE TABLE IF NOT EXISTS rso_migration (name VARCHAR(100) PRIMARY KEY)")
    done = {row["name"] for row in await ledger.fetch("SELECT name FROM rso_migration")}
    for name in sorted(m.name for m in iter_modules(__path__) if m.name.startswith("m")):
        if name in done:
            continue
        module = import_module(f"{__name__}.{name}")
        async with ledger.transaction():
            await driver.script(module.SQL)
            for statement in getattr(module, driver.kind.upper(), ()):
                await ledger.execute(statement)
            await ledger.execute("INSERT INTO rso_migration (name) VALUES (?)", name)
