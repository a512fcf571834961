"""The upper layer's socket: whole PDUs in, gathered PDUs out, bounded in size and in time.

PS3.8 9.3 for the PDUs. No length that a peer sends is believed before the bytes arrived.
"""

import contextlib
import mmap
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rso.core.errors import TransientTransportError
from rso.core.transport import Buffer

__all__ = [
    "ABORT",
    "ACCEPT",
    "DATA",
    "MOST_RECEIVED",
    "REJECT",
    "RELEASE_ANSWER",
    "RELEASE_REQUEST",
    "REQUEST",
    "Fragment",
    "Wire",
    "WireError",
    "data_pdus",
]

REQUEST, ACCEPT, REJECT, DATA, RELEASE_REQUEST, RELEASE_ANSWER, ABORT = range(1, 8)
MOST_RECEIVED = 262_144  # what RSO advertises as its maximum P-DATA length
MOST_NEGOTIATION = 256 << 10
_HEAD = struct.Struct(">BxL")
_PDV = struct.Struct(">LBB")
_DATA_HEAD = struct.Struct(">BxLLBB")
_SLOWEST = 8 << 10  # bytes a second a peer must keep up within a PDU
_GRACE_SECONDS = 15.0
_TICK_SECONDS = 20.0  # a longer wait is made of these
_BUFFER = 512 << 10
_MOST_GATHERED = 500


class WireError(TransientTransportError):
    """The peer broke the protocol, fell silent or went away."""


class Fragment(NamedTuple):
    """The head of a presentation data value; its bytes follow on the wire."""

    context_id: int
    is_command: bool
    is_last: bool
    length: int


class Wire:
    """One connected socket. Used by one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Mapped, so that an association that says little takes a page and not all of it.
        self._buffer = mmap.mmap(-1, _BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._left = 0  # bytes of the current P-DATA not yet read
        self._deadline = 0.0
        self._set: dict[int, float] = {}
        if not self._tls:
            sock.settimeout(None)
        self.in_message = False  # between the first byte of a request and its answer
        self.when_idle: Callable[[], None] | None = None  # called while nothing comes

    def _receive(self, into: memoryview, flags: int = 0) -> int:
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise WireError("the peer was too slow")
            self._patience(socket.SO_RCVTIMEO, min(left, _TICK_SECONDS))
            if not self._tls:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            try:
                count = self.sock.recv_into(into, 0, flags)
            except (BlockingIOError, TimeoutError, ssl.SSLWantReadError) as exc:
                if time.monotonic() < self._deadline:
                    if self.when_idle is not None and not self.in_message:
                        self.when_idle()
                    continue
                raise WireError("the peer fell silent") from exc
            except OSError as exc:
                raise WireError(f"the connection broke: {exc.strerror or exc}") from exc
            if not count:
                raise WireError("the peer closed the connection")
            if time.monotonic() > self._deadline:
                raise WireError("the peer was too slow")
            return count

    def _patience(self, which: int, seconds: float) -> None:
        """How long the next call on the socket may wait; set only where it changes."""
        if self._tls:
            if seconds != self._set.get(0):
                self.sock.settimeout(seconds)
                self._set[0] = seconds
        elif seconds != self._set.get(which):
            # A kernel timeout costs no extra poll for each read.
            limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6) or 1)
            self.sock.setsockopt(socket.SOL_SOCKET, which, limit)
            self._set[which] = seconds

    def _need(self, count: int) -> None:
        """Have ``count`` bytes (a small number) in the buffer."""
        if self._end - self._start >= count:
            return
        if self._start:
            kept = self._end - self._start
            self._view[:kept] = self._view[self._start : self._end]
            self._start, self._end = 0, kept
        while self._end < count:
            self._end += self._receive(self._view[self._end :])

    def read_head(self, seconds: float, *, whole: bool = False) -> tuple[int, int]:
        """Type and length of the next PDU, waited for at most ``seconds``.

        The rest of it may take as long again as a slow line needs, but where ``whole`` is true.
        """
        until = self._deadline = time.monotonic() + seconds
        self._need(6)
        kind, length = _HEAD.unpack_from(self._buffer, self._start)
        self._start += 6
        slow = time.monotonic() + _GRACE_SECONDS + length / _SLOWEST
        self._deadline = min(until, slow) if whole else slow
        if kind == DATA:
            if length > MOST_RECEIVED + 6:
                raise WireError("a P-DATA is longer than was negotiated")
            self._left = length
        elif length > MOST_NEGOTIATION:
            raise WireError("a PDU is longer than any that is needed")
        return kind, length

    def read_body(self, length: int, seconds: float | None = None) -> bytes:
        """The rest of a PDU that is not P-DATA."""
        if seconds is not None:
            self._deadline = min(self._deadline, time.monotonic() + seconds)
        body = bytearray(length)
        self.read_into(memoryview(body))
        return bytes(body)

    def fragments(self) -> Iterator[Fragment]:
        """The values of the P-DATA whose head was read; read each one's bytes in turn."""
        while self._left:
            if self._left < 6:
                raise WireError("a P-DATA is broken")
            self._need(6)
            size, context_id, control = _PDV.unpack_from(self._buffer, self._start)
            self._start += 6
            if size < 2 or size + 4 > self._left:
                raise WireError("a P-DATA is broken")
            self._left -= size + 4
            yield Fragment(context_id, bool(control & 1), bool(control & 2), size - 2)

    def read_into(self, target: memoryview) -> None:
        """Fill ``target`` from the wire."""
        count = min(self._end - self._start, len(target))
        target[:count] = self._view[self._start : self._start + count]
        self._start += count
        while count < len(target):
            if len(target) - count < _BUFFER // 8:
                # Little is missing: read what follows it along with it.
                self._start = self._end = 0
                self._end = self._receive(self._view)
                more = min(self._end, len(target) - count)
                target[count : count + more] = self._view[:more]
                self._start = more
                count += more
            else:
                # One call waits for all of it; what is there when patience ends is taken.
                count += self._receive(target[count:], 0 if self._tls else socket.MSG_WAITALL)

    def send(self, parts: Sequence[Buffer], seconds: float = 60.0) -> None:
        """Send buffers in order with as few system calls as can be."""
        self._patience(socket.SO_SNDTIMEO, seconds)
        try:
            if self._tls:
                self.sock.sendall(b"".join(parts))
                return
            for start in range(0, len(parts), _MOST_GATHERED):
                chunk = parts[start : start + _MOST_GATHERED]
                sent = self.sock.sendmsg(chunk)
                if sent < sum(map(len, chunk)):
                    self.sock.sendall(b"".join(chunk)[sent:])
        except (BlockingIOError, TimeoutError) as exc:
            raise WireError("the peer does not read") from exc
        except OSError as exc:
            raise WireError(f"the connection broke: {exc.strerror or exc}") from exc

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def data_pdus(
    context_id: int, data: Buffer, most: int, *, is_command: bool, is_last: bool = True
) -> list[Buffer]:
    """P-DATA PDUs that carry ``data``, none longer than the peer's maximum (0: no limit)."""
    room = (most or MOST_RECEIVED) - 6
    view = memoryview(data)
    parts: list[Buffer] = []
    size = len(view)
    for start in range(0, max(size, 1), room):
        piece = view[start : start + room]
        ends = is_last and start + room >= size
        control = (1 if is_command else 0) | (2 if ends else 0)
        parts += [
            _DATA_HEAD.pack(DATA, len(piece) + 6, len(piece) + 2, context_id, control),
            piece,
        ]
    return parts
