"""Who does not sign in keeps nobody out, whatever they send."""

import contextlib
import ftplib
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from argon2 import PasswordHasher
from rso_ftp.plugin import Ftp, FtpConfig
from rso_ftp.strangers import Guest, Guests

from rso.plugins import Connection, Kind, ReceiverContext, Source
from rso.testing.contracts import sample_file
from rso.testing.spool import RecordingSpool

_PASSWORD = "correct horse"
_NORTH = Source(
    facility="NORTH", channel="ftp", identity="north", kind=Kind.TECHNICIAN,
    networks=("127.0.0.9/32",),
    password_hash=PasswordHasher(time_cost=1, memory_cost=64).hash(_PASSWORD),
)  # fmt: skip


class Server:
    """A running server with one account."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.spool = RecordingSpool()
        context = ReceiverContext(
            spool=self.spool, identify=self.identify, sources=lambda: [_NORTH], data_dir=folder
        )
        values = {"host": "127.0.0.1", "port": 0, **options}
        self.ftp = Ftp(FtpConfig(**values), context)  # type: ignore[arg-type]
        self.port = 0

    def identify(self, connection: Connection) -> Source | None:
        """By name."""
        return _NORTH if connection.identity == "north" else None

    async def start(self) -> None:
        """Listen."""
        self.port = int((await self.ftp.start())[0].rpartition(":")[2])

    def stranger(self, address: str = "127.0.0.1") -> socket.socket:
        """Connected from an address, and greeted."""
        made = socket.create_connection(("127.0.0.1", self.port), 20, (address, 0))
        assert made.recv(4096).startswith(b"220")
        return made

    def client(self) -> ftplib.FTP:
        """Signed in, in the clear."""
        made = ftplib.FTP(timeout=20)
        try:
            made.connect("127.0.0.1", self.port)
            made.login("north", _PASSWORD)
        except ftplib.Error:
            made.close()
            raise
        return made


Make = Callable[..., "contextlib.AbstractAsyncContextManager[Server]"]


@pytest.fixture
def serve(tmp_path: Path) -> Make:
    """Servers, stopped behind their tests."""

    @contextlib.asynccontextmanager
    async def run(**options: object) -> AsyncIterator[Server]:
        made = Server(tmp_path, **options)
        await made.start()
        try:
            yield made
        finally:
            await made.ftp.close()

    return run


def is_open(sock: socket.socket) -> bool:
    """Whether a NOOP is answered."""
    try:
        sock.sendall(b"NOOP\r\n")
        return sock.recv(4096).startswith(b"200")
    except OSError:
        return False


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    """Sockets that are closed at the end."""
    held: list[socket.socket] = []
    yield held
    for sock in held:
        sock.close()


async def test_strangers_keep_no_clinic_out(
    serve: Make, crowd: list[socket.socket], peer: Callable[[str], str], tmp_path: Path
) -> None:
    """Two hundred from four addresses send NOOP, some half in TLS; lftp signs in and sends."""
    async with serve() as server:
        for number in range(200):
            sock = server.stranger(f"127.0.0.{number % 4 + 2}")
            if number % 3 == 0:
                sock.sendall(b"AUTH TLS\r\n")
            crowd.append(sock)
        script = (
            "set ssl:verify-certificate no; set ftp:ssl-force yes; set net:max-retries 1;"
            f" set net:timeout 10; open -u north,'{_PASSWORD}' 127.0.0.1:{server.port};"
            f" put {sample_file()} -o a.dcm; ls"
        )
        begun = time.monotonic()
        done = subprocess.run(
            [peer("lftp"), "-c", script], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - begun < 10
        assert len(server.spool.kept) == 1
        # They were pushed out in equal parts, and half of the room is theirs still.
        plain = [sock for n, sock in enumerate(crowd) if n % 3]
        with ThreadPoolExecutor(20) as pool:
            alive = sum(pool.map(is_open, plain))
        assert 50 <= alive <= 70


async def test_a_stranger_is_ended_whatever_it_sends(
    serve: Make, crowd: list[socket.socket]
) -> None:
    """NOOP, a handshake that stalls, a USER, a drip: all end; who has signed in stays."""
    async with serve(tls="off", sign_in_seconds=2) as server:
        north = server.client()
        crowd.extend(server.stranger() for _ in range(2))
        begun = time.monotonic()
        while is_open(crowd[0]) and time.monotonic() - begun < 10:
            with contextlib.suppress(OSError):
                crowd[1].sendall(b"U")
            time.sleep(0.1)
        assert 1.5 < time.monotonic() - begun < 5
        assert not is_open(crowd[1])
        assert north.voidcmd("NOOP").startswith("200")
        # Who signs out to be another has as long as a newcomer, and no longer.
        assert north.sendcmd("USER south").startswith("331")
        time.sleep(1)
        assert north.voidcmd("NOOP").startswith("200")
        time.sleep(2)
        with pytest.raises((EOFError, OSError)):
            north.voidcmd("NOOP")
        north.close()
        server.client().quit()


async def test_a_handshake_that_stalls_is_ended(serve: Make) -> None:
    """Also over TLS, before, in and after the handshake."""
    async with serve(sign_in_seconds=2) as server:
        stalled, halted = server.stranger(), server.stranger()
        stalled.sendall(b"AUTH TLS\r\n")
        assert stalled.recv(4096).startswith(b"234")
        halted.sendall(b"AUTH TLS\r\n")
        assert halted.recv(4096).startswith(b"234")
        secure = ssl._create_unverified_context().wrap_socket(halted)
        secure.sendall(b"USER north\r\n")
        assert secure.recv(4096).startswith(b"331")
        begun = time.monotonic()
        for sock in (stalled, secure):
            with contextlib.suppress(OSError):
                assert sock.recv(4096) == b""
            sock.close()
        assert time.monotonic() - begun < 5
        again = ftplib.FTP_TLS(context=ssl._create_unverified_context(), timeout=20)
        again.connect("127.0.0.1", server.port)
        again.login("north", _PASSWORD)
        again.close()


async def test_who_signed_in_never_gives_way(serve: Make, crowd: list[socket.socket]) -> None:
    """A full room of them refuses a newcomer, and has a place again when one has left."""
    async with serve(tls="off", connections=2, per_address=5) as server:
        inside = [server.client(), server.client()]
        with pytest.raises(ftplib.error_temp, match="421 Too many connections"):
            server.client()
        inside[0].quit()
        inside[0].close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(ftplib.error_temp):
                server.client().close()
                break
            time.sleep(0.1)
        else:
            pytest.fail("no place became free")
        assert inside[1].voidcmd("NOOP").startswith("200")
        inside[1].close()


async def test_an_address_pushes_out_its_own(serve: Make, crowd: list[socket.socket]) -> None:
    """At `per_address` a newcomer takes the place of that address's oldest stranger."""
    async with serve(tls="off", per_address=3) as server:
        north = server.client()
        other = server.stranger("127.0.0.2")
        crowd.append(other)
        crowd.extend(server.stranger() for _ in range(3))
        assert [is_open(sock) for sock in crowd] == [True, False, True, True]
        assert north.voidcmd("NOOP").startswith("200")
        north.close()


class Room:
    """Strangers that came one after the other."""

    def __init__(self, most: int) -> None:
        self._guests = Guests(most, most, 20)
        self._sockets: list[socket.socket] = []

    def come(self, *addresses: str, expected: bool = False) -> list[Guest]:
        """One from each address, each let in."""
        made = []
        for address in addresses:
            assert self._guests.refusal(address) == ""
            ours, theirs = socket.socketpair()
            self._sockets += [ours, theirs]
            handler = SimpleNamespace(remote_ip=address, authenticated=False)
            made.append(Guest(handler, ours, expected=expected))
            self._guests.arrived(made[-1])
        return made

    def close(self) -> None:
        """All sockets."""
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def room() -> Iterator[Callable[[int], Room]]:
    """Rooms for so many, half of them strangers."""
    made: list[Room] = []

    def open_room(most: int) -> Room:
        made.append(Room(most))
        return made[-1]

    yield open_room
    for each in made:
        each.close()


def test_the_most_crowded_address_gives_way(room: Callable[[int], Room]) -> None:
    """Its oldest, not a clinic's one; an IPv6 network of 64 bits is one address."""
    full = room(16)
    (clinic,) = full.come("192.0.2.1")
    crowd = full.come(*(f"2001:db8::{n}" for n in range(1, 8)))
    full.come("192.0.2.9")
    assert not clinic.ended
    assert [guest.ended for guest in crowd] == [True] + [False] * 6


def test_a_client_that_opens_several_at_once_is_no_crowd(room: Callable[[int], Room]) -> None:
    """Among a hundred strangers of one connection each six stay; with the seventh it is one."""
    full = room(200)
    crowd = full.come(*(f"192.0.2.{n}" for n in range(100)))
    clinic = full.come(*["198.51.100.1"] * 6)
    assert not any(guest.ended for guest in clinic)
    assert [guest.ended for guest in crowd] == [True] * 6 + [False] * 94
    full.come("198.51.100.1")
    assert [guest.ended for guest in clinic] == [True] + [False] * 5


def test_who_is_expected_gives_way_last(room: Callable[[int], Room]) -> None:
    """However many they are and how old; without others they push out their own as all do."""
    full = room(20)
    clinic = full.come(*["198.51.100.1"] * 8, expected=True)
    crowd = full.come("192.0.2.1", "192.0.2.2")
    clinic += full.come(*["198.51.100.1"] * 2, expected=True)
    assert all(guest.ended for guest in crowd)
    assert not any(guest.ended for guest in clinic)
    (other,) = full.come("192.0.2.3")
    assert [guest.ended for guest in clinic] == [True] + [False] * 9
    full.come("192.0.2.4")
    assert other.ended


async def test_a_declared_network_is_expected(serve: Make, crowd: list[socket.socket]) -> None:
    """Its connection stays though it is the oldest."""
    async with serve(tls="off", connections=4) as server:
        crowd.extend(server.stranger(f"127.0.0.{n}") for n in (9, 2, 3))
        assert [is_open(sock) for sock in crowd] == [True, False, True]
