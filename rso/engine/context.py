"""What every loop and service of the engine works with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from msgspec import Struct, field

from rso.engine.archive import LocalArchive
from rso.ledger import Ledger
from rso.plugins import Plugins, load_plugins
from rso.settings import Settings

__all__ = ["Engine", "open_engine"]


class Engine(Struct, frozen=True, kw_only=True):
    """The parts that the engine's functions share.

    Attributes:
        work: Set whenever deliveries may have become due in this process.
    """

    ledger: Ledger
    plugins: Plugins
    settings: Settings
    archive: LocalArchive
    work: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """The engine's parts, opened and closed in order; the ledger is brought up to date."""
    ledger = await Ledger.open(settings.database.url)
    try:
        await ledger.migrate()
        yield Engine(
            ledger=ledger,
            plugins=load_plugins(settings),
            settings=settings,
            archive=LocalArchive(settings.archive_dir),
        )
    finally:
        await ledger.close()
