"""A provider that does as told, for tests of a plugin or of what leans on one.

class Pager(FakeNotifier):
    name = "pager"
"""

import asyncio
from typing import Any, ClassVar

from msgspec import Struct

from rso.core.errors import TransientTransportError
from rso.core.notifier import Message, Notifier
from rso.core.transport import Health

__all__ = ["FakeNotifier", "NoConfig"]


class NoConfig(Struct, frozen=True):
    """A section without options."""


class FakeNotifier(Notifier):
    """Remembers what it was given, and fails as told; subclass it and give it a ``name``.

    Attributes:
        sent: Every message that was taken.
        fault: Raised by every ``send`` until it is ``None`` again.
        faults: Raised one after another, before ``fault`` is looked at.
        refused: Addresses and what is raised for them.
        fate: What ``follow`` says of every message: ``delivered``, ``failed`` or nothing; an
            exception is raised.
        seconds: How long every ``send`` takes.
        lost: Take the message, and then fail as a provider does whose answer is lost.
    """

    name: ClassVar[str] = "fake"
    config_type = NoConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.sent: list[Message] = []
        self.fault: Exception | None = None
        self.faults: list[Exception] = []
        self.refused: dict[str, Exception] = {}
        self.fate: str | Exception = ""
        self.seconds = 0.0
        self.lost = False
        self.closed = False

    async def send(self, message: Message) -> str:
        """Take it, or not."""
        await asyncio.sleep(self.seconds)
        fault = self.faults.pop(0) if self.faults else self.fault
        fault = fault or self.refused.get(message.address)
        if fault is not None:
            raise fault
        self.sent.append(message)
        if self.lost:
            raise TransientTransportError("the answer was lost")
        return f"job {len(self.sent)}"

    async def follow(self, ticket: str) -> str:  # noqa: ARG002  (all have one fate)
        """As told."""
        if isinstance(self.fate, Exception):
            raise self.fate
        return self.fate

    async def health(self) -> Health:
        """Well, unless it fails."""
        return Health(ok=self.fault is None, detail=str(self.fault or ""))

    async def close(self) -> None:
        """Once or more."""
        self.closed = True
