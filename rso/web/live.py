"""Live pages: a stream to each browser tab that says that something changed, and nothing else.

One watch of the ledger and one look at the sessions serve all streams of this process. No patient
data travels here; the page asks for what it shows by itself.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from weakref import WeakSet

import structlog
from litestar.response.sse import ServerSentEventMessage

from rso.core.errors import RsoError
from rso.ledger import Ledger
from rso.ledger.people import Person
from rso.ledger.sessions import Limits, open_sessions

__all__ = ["Live", "Stream", "TooManyStreams"]

log = structlog.get_logger(__name__)

BEAT_SECONDS = 10.0
SESSION_SECONDS = 3.0
PAUSE_SECONDS = 1.0  # between two words of change on one stream
AGAIN_SECONDS = 1.0
MOST_A_PERSON = 12
Message = ServerSentEventMessage


class TooManyStreams(RsoError):  # noqa: N818  (says what is the case)
    """A person has as many live pages open as one may."""


class Stream:
    """One open tab."""

    def __init__(self, session: str, person: Person) -> None:
        self.session = session
        self.person = person
        self.woken = asyncio.Event()
        self.ended = ""

    def sees(self, changed: frozenset[str] | None) -> bool:
        """Whether the change is of a facility that the person may see; ``None`` is any."""
        own = self.person.facilities
        return changed is None or own is None or not changed.isdisjoint(own)

    def end(self, reason: str) -> None:
        """End with this event."""
        self.ended = reason
        self.woken.set()


class Live:
    """The streams of this process; it watches while there are any."""

    def __init__(self, ledger: Ledger, limits: Limits | None = None) -> None:
        self._ledger = ledger
        self._limits = limits or Limits()
        # Held by what serves them: one whose client left before its first byte goes by itself.
        self._streams: WeakSet[Stream] = WeakSet()
        self._watch: asyncio.Task[None] | None = None
        self._closed = False

    def open(self, session: str, person: Person) -> Stream:
        """Count one more tab of a person's session.

        Raises:
            TooManyStreams: One has enough of them.
        """
        own = [s for s in self._streams if s.person.email == person.email]
        if len(own) >= MOST_A_PERSON or self._closed:
            raise TooManyStreams("too many live pages are open; please close some")
        stream = Stream(session, person)
        self._streams.add(stream)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._run())
        return stream

    async def messages(self, stream: Stream) -> AsyncGenerator[Message, None]:
        """What the tab is sent: ``ready``, then ``change`` and ``beat``, and why it ends."""
        try:
            yield Message(event="ready", retry=1000)
            while not stream.ended:
                try:
                    await asyncio.wait_for(stream.woken.wait(), BEAT_SECONDS)
                except TimeoutError:
                    yield Message(event="beat")
                    continue
                stream.woken.clear()
                if not stream.ended:
                    yield Message(event="change")
                    await asyncio.sleep(PAUSE_SECONDS)
            yield Message(event=stream.ended)
        finally:
            self._streams.discard(stream)
            if not self._streams and self._watch is not None:
                self._watch.cancel()
                self._watch = None

    def close(self) -> None:
        """End every stream: the process stops, and the browsers come back to the next."""
        self._closed = True
        for stream in list(self._streams):
            stream.end("restart")
        if self._watch is not None:
            self._watch.cancel()

    async def _run(self) -> None:
        sessions = asyncio.create_task(self._look_at_sessions())
        try:
            while self._streams:
                try:
                    async with self._ledger.changes() as changes:
                        async for changed in changes:
                            self._tell(changed)
                            if not self._streams:
                                return
                except RsoError as exc:
                    log.warning("changes cannot be watched", reason=str(exc))
                    await asyncio.sleep(AGAIN_SECONDS)
        finally:
            sessions.cancel()

    def _tell(self, changed: frozenset[str] | None) -> None:
        for stream in list(self._streams):
            if stream.sees(changed):
                stream.woken.set()

    async def _look_at_sessions(self) -> None:
        """End the streams whose sessions are over; what a person may see is renewed."""
        while True:
            await asyncio.sleep(SESSION_SECONDS)
            with contextlib.suppress(RsoError):
                found = await open_sessions(self._ledger, _keys(self._streams), limits=self._limits)
                for stream in list(self._streams):
                    if stream.session not in found:
                        stream.end("signed-out")
                    else:
                        stream.person = found[stream.session]


def _keys(streams: Iterable[Stream]) -> list[str]:
    return sorted({stream.session for stream in streams})
