"""Turns at what costs: a few at once, a few more wait, and the rest is told to come again."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary

from rso.core.errors import BusyError

__all__ = ["Turns"]


class Turns:
    """A bounded queue in front of a few places.

    Args:
        at_once: How many have a turn at the same time.
        most: How many have one or wait for one, together.
        each: As many of one caller, which is a host where strangers ask; 0: no bound of its own.
    """

    def __init__(self, at_once: int, *, most: int, each: int = 0) -> None:
        self._at_once, self._most, self._each = at_once, most, each
        self._here: Counter[str] = Counter()
        # A semaphore belongs to its event loop, and one of these to a module.
        self._places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )

    @contextlib.asynccontextmanager
    async def take(self, who: str = "") -> AsyncIterator[None]:
        """Have a turn.

        Raises:
            BusyError: Too many wait already, of all or of ``who``.
        """
        if self._here.total() >= self._most or 0 < self._each <= self._here[who]:
            raise BusyError("too many at once; please try again in ten seconds")
        self._here[who] += 1
        try:
            places = self._places.setdefault(
                asyncio.get_running_loop(), asyncio.Semaphore(self._at_once)
            )
            async with places:
                yield
        finally:
            self._here[who] -= 1
            if not self._here[who]:
                del self._here[who]
