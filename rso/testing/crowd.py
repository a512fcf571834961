"""Clients that hold connections and give nothing: half are silent, half drip a byte a second."""

import selectors
import socket
import struct
import threading
import time
from contextlib import suppress

from msgspec import Struct

__all__ = ["Crowd"]

_BEGINNING = struct.pack(">BxLHxx16s16s", 1, 4000, 1, b"RSO".ljust(16), b"NORTHCT".ljust(16))


class _Member(Struct, kw_only=True):
    sock: socket.socket
    drips: bool
    since: float
    sent: int = 0
    next_at: float = 0.0
    ended: float = 0.0


class Crowd:
    """So many connections from loopback, every second one dripping; a context manager.

    Attributes:
        held: Seconds that the server let each live that it has closed, when all were open.
    """

    def __init__(self, port: int, count: int, *, greeting: bytes = _BEGINNING) -> None:
        self._port, self._count, self._greeting = port, count, greeting
        self._members: list[_Member] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Crowd":
        for number in range(self._count):
            sock = socket.socket()
            sock.setblocking(False)
            # Not waited for: a server that accepts nobody any more leaves it in its queue.
            sock.connect_ex(("127.0.0.1", self._port))
            self._members.append(_Member(sock=sock, drips=bool(number % 2), since=time.monotonic()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for member in self._members:
            member.sock.close()

    @property
    def alive(self) -> int:
        """How many the server still holds."""
        return sum(not member.ended for member in self._members)

    @property
    def held(self) -> list[float]:
        """How long the others lived, in seconds."""
        return [m.ended - m.since for m in self._members if m.ended]

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for member in self._members:
                selector.register(member.sock, selectors.EVENT_READ, member)
            while not self._stop.is_set():
                for key, _ in selector.select(0.2):
                    if self._closed(key.data):
                        selector.unregister(key.data.sock)
                now = time.monotonic()
                for member in self._members:
                    if member.drips and not member.ended and member.next_at < now:
                        self._drip(member, now)

    def _closed(self, member: _Member) -> bool:
        try:
            while member.sock.recv(4096):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        member.ended = time.monotonic()
        return True

    def _drip(self, member: _Member, now: float) -> None:
        member.next_at = now + 1.0
        place = member.sent % 4000
        byte = self._greeting[place : place + 1] or b"\0"
        with suppress(OSError):
            member.sent += member.sock.send(byte)
