"""What every loop and service of the engine works with."""

import asyncio
from typing import Any

from msgspec import Struct, field

from rso.engine.archive import LocalArchive
from rso.ledger import Ledger
from rso.plugins import Plugins
from rso.settings import Settings

__all__ = ["Engine"]


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

    @property
    def hook(self) -> Any:
        """The plugins' hooks."""
        return self.plugins.hook
