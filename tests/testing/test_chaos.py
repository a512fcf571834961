"""The chaos proxy does to a link what it says."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from rso.testing.chaos import Chaos, ChaosProxy

pytestmark = pytest.mark.alone


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.received: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.received.append(bytearray())
            threading.Thread(
                target=self._serve, args=(sock, self.received[-1]), daemon=True
            ).start()

    def _serve(self, sock: socket.socket, received: bytearray) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                received += data
                sock.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server behind the proxy."""
    made = Echo()
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[ChaosProxy]:
    """A proxy before the echo."""
    made = ChaosProxy(echo.port)
    made.start()
    yield made
    made.stop()


def connect(proxy: ChaosProxy) -> socket.socket:
    """A client's socket."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def receive(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or what came before the end; a reset raises."""
    data = b""
    while len(data) < count and (more := sock.recv(65536)):
        data += more
    return data


def pdu(kind: int, size: int) -> bytes:
    """A PDU of zeros."""
    return bytes([kind, 0]) + size.to_bytes(4, "big") + bytes(size)


def test_passes_everything_on(proxy: ChaosProxy) -> None:
    """Without chaos it is a plain proxy, in both directions, to the end."""
    with connect(proxy) as sock:
        data = bytes(range(256)) * 4000
        threading.Thread(target=sock.sendall, args=(data,)).start()
        assert receive(sock, len(data)) == data
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert proxy.connections == 1


def test_delays_without_slowing(proxy: ChaosProxy) -> None:
    """A delay holds each byte up, not the number of bytes on their way."""
    proxy.to_server = proxy.to_client = Chaos(delay_seconds=0.1)
    with connect(proxy) as sock:
        began = time.monotonic()
        for _ in range(20):
            sock.sendall(bytes(100))
            time.sleep(0.005)
        assert len(receive(sock, 2000)) == 2000
        assert 0.2 <= time.monotonic() - began < 1.5


def test_limits_the_rate(proxy: ChaosProxy) -> None:
    """So many bytes take so long."""
    proxy.to_client = Chaos(bytes_per_second=200_000)
    with connect(proxy) as sock:
        began = time.monotonic()
        threading.Thread(target=sock.sendall, args=(bytes(100_000),)).start()
        assert len(receive(sock, 100_000)) == 100_000
        assert time.monotonic() - began > 0.2


def is_reset(sock: socket.socket, data: bytes = b"") -> bool:
    """Whether the connection ends with a reset, now or when more is sent."""
    try:
        sock.sendall(data)
        while sock.recv(1000):
            pass
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


@pytest.mark.parametrize("step", [9, 200])
def test_resets_at_a_byte_and_at_a_pdu(proxy: ChaosProxy, echo: Echo, step: int) -> None:
    """Exactly what was promised arrives, then a reset, however the bytes are cut on the way."""
    data = pdu(1, 24) + pdu(4, 40) + pdu(4, 50)
    promised = {Chaos(reset_at_byte=7): 7, Chaos(reset_at_byte=0): 0, Chaos(reset_at_pdu=2): 76,
                Chaos(reset_at_pdu=1): 30, Chaos(reset_at_pdu=0): 0}  # fmt: skip
    for chaos, count in promised.items():
        proxy.to_server = chaos
        with connect(proxy) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError):
                for start in range(0, len(data), step):
                    sock.sendall(data[start : start + step])
                    time.sleep(0.003)
            assert is_reset(sock)
        assert len(echo.received[-1]) == count


def test_black_hole_and_half_open(proxy: ChaosProxy) -> None:
    """Swallowed bytes get no answer; an end that is not passed on is not seen."""
    proxy.to_server = Chaos(black_hole_at_byte=3)
    with connect(proxy) as sock:
        sock.settimeout(0.3)
        sock.sendall(b"abcdef")
        assert receive(sock, 3) == b"abc"
        with pytest.raises(TimeoutError):
            sock.recv(1)
    proxy.to_server = Chaos(half_open=True)
    with connect(proxy) as sock:
        sock.settimeout(0.3)
        sock.sendall(b"abc")
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 3) == b"abc"
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_drop_and_a_server_that_is_away(proxy: ChaosProxy) -> None:
    """Open connections are reset on request; one to nobody is reset at once."""
    with connect(proxy) as sock:
        sock.sendall(b"abc")
        receive(sock, 3)
        proxy.drop()
        assert is_reset(sock)
    nobody = ChaosProxy(1)
    nobody.start()
    # The reset may be there before the connection's own beginning has been noticed.
    with contextlib.suppress(ConnectionResetError), connect(nobody) as sock:
        assert is_reset(sock, b"x")
    nobody.stop()
