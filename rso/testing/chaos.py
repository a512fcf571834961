"""A TCP proxy that makes a link slow, cut, silent or half open: for tests of any protocol.

proxy = ChaosProxy(pacs.port)
proxy.start()
proxy.to_server = Chaos(reset_at_pdu=3)  # holds for connections made from now on
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any

from msgspec import Struct

__all__ = ["Chaos", "ChaosProxy"]

_READ = 64 << 10
_AHEAD = 64  # chunks on their way: what a link holds before its sender must wait
_PDU_HEAD = 6
_ARRIVE_SECONDS = 0.2  # a reset makes the other end forget what its program has not read yet


class Chaos(Struct, frozen=True, kw_only=True):
    """What happens to the bytes of one direction of a connection.

    Attributes:
        delay_seconds: Every byte arrives this much later.
        bytes_per_second: No faster than this; 0 is no limit.
        reset_at_byte: So many bytes arrive, then both ends get a reset.
        reset_at_pdu: So many whole PDUs (PS3.8 9.3) arrive, then both ends get a reset.
        black_hole_at_byte: So many bytes arrive; later ones are swallowed and nobody is told.
        half_open: The end of this direction is not passed on; the other end waits for ever.
    """

    delay_seconds: float = 0.0
    bytes_per_second: float = 0.0
    reset_at_byte: int | None = None
    reset_at_pdu: int | None = None
    black_hole_at_byte: int | None = None
    half_open: bool = False


class ChaosProxy:
    """Listens on loopback and passes connections on, as well as it is told to.

    Attributes:
        to_server: Chaos for what clients send; read when a connection is made.
        to_client: Chaos for what the server sends.
        connections: How many were made so far.
        pdus: PDUs passed on towards the server, of all connections.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self.to_server = Chaos()
        self.to_client = Chaos()
        self.connections = 0
        self.pdus = 0
        self.port = 0
        self._target = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos", daemon=True)
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> int:
        """Listen; returns the port."""
        self._thread.start()
        self.port = int(self._call(self._listen()))
        return self.port

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        chaos = self.to_server, self.to_client
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        connection = _Connection(self, writer, far_writer)
        self._open.add(connection)
        try:
            await asyncio.gather(
                connection.carry(reader, far_writer, chaos[0], upward=True),
                connection.carry(far_reader, writer, chaos[1], upward=False),
            )
        except OSError:
            connection.reset()
        finally:
            self._open.discard(connection)
            for one in (writer, far_writer):
                one.close()

    def drop(self) -> None:
        """Reset every connection that is open now."""

        async def reset() -> None:
            for connection in list(self._open):
                connection.reset()

        self._call(reset())

    def stop(self) -> None:
        """Stop listening and reset what is open."""

        async def end() -> None:
            self._server.close()
            for connection in list(self._open):
                connection.reset()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class _Connection:
    """Both directions of one connection."""

    def __init__(
        self, proxy: ChaosProxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._writers = near, far
        self._is_reset = asyncio.Event()

    def reset(self) -> None:
        """An RST to both ends."""
        self._is_reset.set()
        for writer in self._writers:
            _reset(writer)

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        chaos: Chaos,
        *,
        upward: bool,
    ) -> None:
        """One direction, until its end or a reset."""
        sent: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_AHEAD)
        send = asyncio.create_task(self._send(sent, writer, chaos, upward=upward))
        over = asyncio.create_task(self._is_reset.wait())
        loop = asyncio.get_running_loop()
        try:
            data = b"-"
            while data and not self._is_reset.is_set():
                read = asyncio.create_task(reader.read(_READ))
                await asyncio.wait({read, over, send}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    read.cancel()
                    break
                data = read.result()
                await sent.put((loop.time() + chaos.delay_seconds, data))
            await asyncio.wait({send, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            send.cancel()
            over.cancel()
            await asyncio.gather(send, over, return_exceptions=True)

    async def _send(
        self,
        sent: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        chaos: Chaos,
        *,
        upward: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        passed, cut = 0, _Cut(chaos)
        while True:
            due, data = await sent.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not data:
                if not chaos.half_open and writer.can_write_eof():
                    with contextlib.suppress(OSError, RuntimeError):
                        writer.write_eof()
                return
            data, pdus, ends = cut.take(data)
            if upward:
                self._proxy.pdus += pdus
            if chaos.black_hole_at_byte is not None:
                data = data[: max(chaos.black_hole_at_byte - passed, 0)]
            passed += len(data)
            if data:
                writer.write(data)
                await writer.drain()
            if ends:
                # What was passed on has to arrive before the reset overtakes it.
                await asyncio.sleep(_ARRIVE_SECONDS)
                self.reset()
                return
            if chaos.bytes_per_second:
                await asyncio.sleep(len(data) / chaos.bytes_per_second)


class _Cut:
    """Where a direction ends: after so many bytes, or so many PDUs."""

    def __init__(self, chaos: Chaos) -> None:
        self._bytes, self._pdus = chaos.reset_at_byte, chaos.reset_at_pdu
        self._seen = 0
        self._head = bytearray()
        self._left = 0  # bytes of the current PDU still to come

    def take(self, data: bytes) -> tuple[bytes, int, bool]:
        """What of ``data`` may pass, how many PDUs end in it, and whether it ends there."""
        whole, place, end = 0, 0, len(data)
        ends = False
        while place < len(data):
            if self._pdus is not None and self._pdus <= 0 and not self._head and not self._left:
                end, ends = place, True
                break
            if not self._left:
                more = data[place : place + _PDU_HEAD - len(self._head)]
                self._head += more
                place += len(more)
                if len(self._head) < _PDU_HEAD:
                    break
                self._left = int.from_bytes(self._head[2:6], "big")
            step = min(self._left, len(data) - place)
            self._left -= step
            place += step
            if not self._left:
                self._head.clear()
                whole += 1
                if self._pdus is not None:
                    self._pdus -= 1
        if self._pdus is not None and self._pdus <= 0 and not self._head and not self._left:
            ends = True
        if self._bytes is not None and self._seen + end >= self._bytes:
            end, ends = self._bytes - self._seen, True
        self._seen += end
        return data[:end], whole, ends


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
