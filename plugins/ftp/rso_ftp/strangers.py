"""Who holds a connection: those that have signed in, and those that only might."""

import contextlib
import socket
import threading
import time
from collections import Counter
from typing import Any

from rso.core.hosts import host_of

__all__ = ["Guest", "Guests"]

# A client that sends a folder opens so many connections at once. With fewer a host is not crowded.
_AT_ONCE = 6


class Guest:
    """One control connection.

    Attributes:
        closing: Held while its own thread closes it. A socket that is closed gives its
            descriptor to the next connection, which must not be ended in its place.
        since: When it began to be nobody (monotonic): it came, or signed out.
        ended: It was told to go, and its thread has yet to notice.
        expected: It came from a network that was declared for a source.
    """

    def __init__(self, handler: Any, sock: socket.socket, *, expected: bool = False) -> None:
        self._handler, self._sock = handler, sock
        self.host = host_of(handler.remote_ip)
        self.closing = threading.RLock()
        self.since = time.monotonic()
        self.ended = False
        self.expected = expected

    @property
    def is_stranger(self) -> bool:
        """It has not signed in, or signed out again."""
        return not self._handler.authenticated

    def end(self) -> None:
        """Cut the line, whatever its thread is doing; from any thread."""
        if self.closing.acquire(blocking=False):
            try:
                self.ended = True
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
            finally:
                self.closing.release()


class Guests:
    """All control connections.

    Strangers have half of the room at most. When their half is full, or the whole room, the
    oldest one of the host with the most strangers gives way to the newcomer: whoever holds on
    to connections only pushes out their own, and a clinic has signed in long before. No more than
    a client opens at once make no crowd, and those of declared networks go behind all others.
    """

    def __init__(self, most: int, per_host: int, sign_in_seconds: float) -> None:
        self._most, self._per_host = most, per_host
        self._strangers = max(1, most // 2)
        self._seconds = sign_in_seconds
        self._lock = threading.Lock()
        self._guests: set[Guest] = set()

    def refusal(self, address: str) -> str:
        """Make room for a newcomer; why it cannot come, or nothing."""
        with self._lock:
            host = host_of(address)
            staying = [guest for guest in self._guests if not guest.ended]
            strangers = [guest for guest in staying if guest.is_stranger]
            if sum(guest.host == host for guest in staying) >= self._per_host:
                crowd = [guest for guest in strangers if guest.host == host]
                refusal = "Too many connections from the same IP address."
            elif len(strangers) >= self._strangers or len(staying) >= self._most:
                crowd = strangers
                refusal = "Too many connections. Service temporarily unavailable."
            else:
                return ""
            # Who was ended is gone in a moment. More of these than the room has seats: a flood.
            if not crowd or len(self._guests) >= self._most + self._strangers:
                return refusal
            counts = Counter([host, *(guest.host for guest in crowd)])

            def claim(guest: Guest) -> tuple[bool, int, float]:
                return not guest.expected, max(counts[guest.host], _AT_ONCE), -guest.since

            max(crowd, key=claim).end()
            return ""

    def arrived(self, guest: Guest) -> None:
        """It has been greeted."""
        with self._lock:
            self._guests.add(guest)

    def left(self, guest: Guest) -> None:
        """Its socket is closed."""
        with self._lock:
            self._guests.discard(guest)

    def end_late(self) -> None:
        """End those that did not sign in in time, whatever they sent meanwhile."""
        latest = time.monotonic() - self._seconds
        with self._lock:
            for guest in self._guests:
                if guest.since < latest and guest.is_stranger and not guest.ended:
                    guest.end()
