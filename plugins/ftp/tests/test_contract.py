"""FTP keeps the receivers' contract, and its own: what a reply means, and what nobody may do."""

import contextlib
import ftplib
import io
import re
import socket
import ssl
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from rso_ftp.plugin import Ftp, FtpConfig
from rso_ftp.server import _Control

from rso.core.errors import NoSpaceError
from rso.plugins import Connection, Kind, Receiver, ReceiverContext, Source
from rso.testing.contracts import ReceiverContract, sample_file
from rso.testing.spool import RecordingSpool

_PASSWORD = "correct horse"
_HASH = PasswordHasher(time_cost=1, memory_cost=64).hash(_PASSWORD)


def account(identity: str, facility: str = "NORTH") -> Source:
    """A source with the password of these tests."""
    return Source(
        facility=facility, channel="ftp", identity=identity, kind=Kind.TECHNICIAN,
        password_hash=_HASH,
    )  # fmt: skip


class Reusing(ftplib.FTP_TLS):
    """Speaks FTPS as widely used clients do, and cannot verify a self-signed certificate."""

    def __init__(self, port: int) -> None:
        context = ssl._create_unverified_context()
        super().__init__(context=context, timeout=20)
        self.connect("127.0.0.1", port)


def port_of(address: str) -> int:
    """Where it listens."""
    found = re.search(r":(\d+)$", address)
    assert found is not None
    return int(found[1])


class TestFtp(ReceiverContract):
    """Contract."""

    def channel(self) -> str:
        """Its name."""
        return "ftp"

    def source(self) -> Source:
        """With a password."""
        return account("KNOWN")

    def make(self, context: ReceiverContext) -> Receiver:
        """On a free port, with TLS."""
        return Ftp(FtpConfig(host="127.0.0.1", port=0), context)

    def deposit(self, receiver: Receiver, file: Path, *, known: bool = True) -> bool:
        """As a technician's client does."""
        ftp = Reusing(port_of(self.addresses[0]))
        try:
            ftp.login("KNOWN" if known else "STRANGER", _PASSWORD)
            ftp.prot_p()
            with file.open("rb") as stream:
                return ftp.storbinary("STOR image.dcm", stream).startswith("226")
        except ftplib.Error:
            return False
        finally:
            ftp.close()

    def test_says_nothing_without_tls(self, receiver: Receiver, spool: RecordingSpool) -> None:
        """A password in the clear, and a data connection in the clear, are refused."""
        port = port_of(self.addresses[0])
        with ftplib.FTP() as plain:
            plain.connect("127.0.0.1", port, timeout=10)
            with pytest.raises(ftplib.error_perm, match="TLS required on the control"):
                plain.login("KNOWN", _PASSWORD)
        ftp = Reusing(port)
        ftp.login("KNOWN", _PASSWORD)
        with pytest.raises(ftplib.error_perm, match="TLS required on the data"):
            ftp.storbinary("STOR a", io.BytesIO(b"x"))
        ftp.close()

    def test_a_full_disk_is_452_over_tls_too(
        self, receiver: Receiver, spool: RecordingSpool
    ) -> None:
        """The reply reaches the client in the channel's own terms."""
        spool.fault = NoSpaceError("out of space, try again later")
        ftp = Reusing(port_of(self.addresses[0]))
        ftp.login("KNOWN", _PASSWORD)
        ftp.prot_p()
        with pytest.raises(ftplib.error_temp, match="452 out of space"):
            ftp.storbinary("STOR a", io.BytesIO(sample_file().read_bytes()))
        ftp.close()


class Server:
    """A running plain server and its parts."""

    def __init__(self, spool: RecordingSpool, folder: Path, **options: object) -> None:
        self.spool, self.folder = spool, folder
        self.sources = [account("north"), account("south", "SOUTH")]
        context = ReceiverContext(
            spool=spool, identify=self.identify, sources=lambda: self.sources, data_dir=folder
        )
        values = {"host": "127.0.0.1", "port": 0, "tls": "off", **options}
        self.ftp = Ftp(FtpConfig(**values), context)  # type: ignore[arg-type]
        self.port = 0

    def identify(self, connection: Connection) -> Source | None:
        """By name."""
        return next((s for s in self.sources if s.identity == connection.identity), None)

    async def start(self) -> None:
        """Listen."""
        self.port = port_of((await self.ftp.start())[0])

    def client(self, name: str = "north") -> ftplib.FTP:
        """Signed in."""
        made = ftplib.FTP(timeout=20)
        made.connect("127.0.0.1", self.port)
        try:
            made.login(name, _PASSWORD)
        except ftplib.Error:
            made.close()
            raise
        made.voidcmd("TYPE I")
        return made


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A plain server with two accounts."""
    made = Server(RecordingSpool(), tmp_path)
    await made.start()
    yield made
    await made.ftp.close()


@pytest.fixture
def north(server: Server) -> Iterator[ftplib.FTP]:
    """The first account, signed in."""
    made = server.client()
    yield made
    made.close()


@pytest.fixture
def image() -> bytes:
    """A real instance."""
    return sample_file().read_bytes()


def test_uploads_only(server: Server, north: ftplib.FTP, image: bytes) -> None:
    """What was kept is listed, and neither read back, deleted nor overwritten in the spool."""
    north.mkd("CT 1")
    assert north.storbinary("STOR CT 1/a.dcm", io.BytesIO(image)) == "226 Kept."
    assert north.nlst("CT 1") == ["a.dcm"]
    north.voidcmd("TYPE I")
    assert north.size("CT 1/a.dcm") == len(image)
    for command in ("RETR CT 1/a.dcm", "DELE CT 1/a.dcm", "RMD CT 1"):
        with pytest.raises(ftplib.error_perm, match="550"):
            north.sendcmd(command)
    north.storbinary("STOR CT 1/a.dcm", io.BytesIO(image))
    assert len(server.spool.kept) == 2  # the engine keeps equal bytes once
    assert north.rename("CT 1/a.dcm", "CT 1/b.dcm").startswith("250")
    assert not list((server.folder / "parts").iterdir())


def test_a_kept_file_looks_old_until_its_client_says_otherwise(
    north: ftplib.FTP, image: bytes
) -> None:
    """Another study's file of the same name and size is newer to any mirror, and is sent."""
    north.storbinary("STOR I0001", io.BytesIO(image))
    assert north.sendcmd("MDTM I0001") == "213 19800101000000"
    north.sendcmd("MFMT 20240102030405 I0001")
    assert north.sendcmd("MDTM I0001") == "213 20240102030405"


def test_accounts_see_nothing_of_each_other(
    server: Server, north: ftplib.FTP, image: bytes
) -> None:
    """Each has its own root; a path has no way out of it."""
    north.mkd("private")
    north.storbinary("STOR private/a.dcm", io.BytesIO(image))
    south = server.client("south")
    assert south.nlst() == []
    for path in ("/private", "../private", "/../../private", "private/../../private"):
        with pytest.raises(ftplib.error_perm, match="550"):
            south.cwd(path)
    south.storbinary("STOR a.dcm", io.BytesIO(image))
    south.close()
    assert [p.facility for p in server.spool.batches] == ["NORTH", "SOUTH"]


def cut_off(ftp: ftplib.FTP, command: str, data: bytes) -> str:
    """Send a part, and lose the data connection; what the server says."""
    channel = ftp.transfercmd(command)
    channel.sendall(data)
    channel.close()
    try:
        return ftp.voidresp()
    except ftplib.Error as exc:
        return str(exc)


def test_a_cut_file_waits_for_its_resume(server: Server, north: ftplib.FTP, image: bytes) -> None:
    """226 never stands for a part; REST and APPE both go on with it, from another session."""
    half = len(image) // 2
    assert cut_off(north, "STOR a.dcm", image[:half]).startswith("426 Incomplete")
    assert not server.spool.kept
    assert north.size("a.dcm") == half
    north.close()
    again = server.client()
    assert again.storbinary("STOR a.dcm", io.BytesIO(image[half:]), rest=half) == "226 Kept."
    cut_off(again, "STOR b.dcm", image[:half])
    assert again.storbinary("APPE b.dcm", io.BytesIO(image[half:])) == "226 Kept."
    assert again.storbinary("STOR b.dcm", io.BytesIO(b""), rest=len(image)) == "226 Kept before."
    with pytest.raises(ftplib.error_perm, match="554 The file has"):
        again.storbinary("STOR c.dcm", io.BytesIO(b"x"), rest=10)
    again.close()
    assert [image.endswith(data) for _, data in server.spool.kept] == [True, True]
    assert not list((server.folder / "parts").iterdir())
    facts = {"account": "north", "facility": "NORTH", "peer": "127.0.0.1"}
    assert ("ftp upload cut off", facts) in server.spool.alerts


def test_a_file_that_is_cut_itself_stops_its_retries(north: ftplib.FTP, image: bytes) -> None:
    """The first time may be the line's fault; the same bytes again are the file's."""
    cut = image[: len(image) // 2]
    with pytest.raises(ftplib.error_temp, match="426 Incomplete"):
        north.storbinary("STOR a.dcm", io.BytesIO(cut))
    with pytest.raises(ftplib.error_perm, match="550 Incomplete"):
        north.storbinary("STOR a.dcm", io.BytesIO(cut))
    with pytest.raises(ftplib.error_perm, match="550 Incomplete after 0 bytes"):
        north.storbinary("STOR empty", io.BytesIO(b""))


def test_a_new_connection_takes_a_file_over(
    server: Server, north: ftplib.FTP, image: bytes
) -> None:
    """The server may not have noticed yet that the old one is gone; its bytes do not mix in."""
    half = len(image) // 2
    stuck = north.transfercmd("STOR a.dcm")
    stuck.sendall(image[:half])
    time.sleep(0.5)
    other = server.client()
    assert other.storbinary("STOR a.dcm", io.BytesIO(image)) == "226 Kept."
    stuck.sendall(b"late" * 1000)
    stuck.close()
    with pytest.raises(ftplib.error_temp, match="426"):
        north.voidresp()
    other.close()
    assert [image.endswith(data) for _, data in server.spool.kept] == [True]


def test_an_abandoned_file_goes_to_quarantine(
    server: Server, north: ftplib.FTP, image: bytes
) -> None:
    """After its time it is set aside with its reason, and somebody is told."""
    cut_off(north, "STOR a.dcm", image[:9000])
    names = server.ftp._names
    assert names is not None
    server.ftp.expire(names, server.folder / "parts", time.time() + 1)
    data, reason = server.spool.aside[0]
    assert data == image[:9000]
    assert "9000 bytes came" in reason
    assert server.spool.alerts[-1][0] == "ftp upload expired"
    assert north.nlst() == []
    assert not list((server.folder / "parts").iterdir())


async def test_parts_and_names_outlive_a_restart(tmp_path: Path, image: bytes) -> None:
    """What waits goes on with the next process; a stray part does not stay."""
    first = Server(RecordingSpool(), tmp_path)
    await first.start()
    ftp = first.client()
    cut_off(ftp, "STOR a.dcm", image[:9000])
    ftp.close()
    await first.ftp.close()
    (tmp_path / "parts" / "stray.part").write_bytes(b"x")
    second = Server(RecordingSpool(), tmp_path)
    await second.start()
    ftp = second.client()
    assert ftp.size("a.dcm") == 9000
    assert ftp.storbinary("STOR a.dcm", io.BytesIO(image[9000:]), rest=9000) == "226 Kept."
    ftp.close()
    await second.ftp.close()
    assert not list((tmp_path / "parts").iterdir())


def test_names_are_labels_only(server: Server, north: ftplib.FTP, image: bytes) -> None:
    """Hostile names are refused or harmless; the disk never sees one."""
    for name in ("../../etc/x", "/abs/x", "a" * 300, "tab\tname", "no/such/folder"):
        with pytest.raises(ftplib.error_perm, match="55"):
            north.storbinary(f"STOR {name}/f", io.BytesIO(image))
    with pytest.raises(ftplib.error_perm, match="500 Command too long"):
        north.sendcmd("STOR " + "a" * 4000)
    with pytest.raises(ftplib.error_perm, match="500"):  # the tail of that line
        north.voidresp()
    north.sock.sendall(b"MKD \xff\xfe\r\n")  # type: ignore[union-attr]
    assert north.voidresp().startswith("257")
    north.storbinary("STOR ../../../escape.dcm", io.BytesIO(image))
    assert "escape.dcm" in north.nlst("/")
    outside = list(server.folder.parent.rglob("*escape*"))
    assert not outside


def test_text_mode_would_break_images(north: ftplib.FTP, image: bytes) -> None:
    """TYPE A is told what to do instead."""
    with pytest.raises(ftplib.error_perm, match="TYPE I"):
        north.storlines("STOR a.dcm", io.BytesIO(image))


def test_what_is_no_image(server: Server, north: ftplib.FTP, image: bytes) -> None:
    """Refused with the reason; a program in the preamble never reaches the spool."""
    with pytest.raises(ftplib.error_perm, match="550 Not kept: no DICM at byte 128"):
        north.storbinary("STOR readme.txt", io.BytesIO(b"hello" * 100))
    unnamed = image.replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\0" + bytes(20), 1)
    with pytest.raises(ftplib.error_perm, match="550 Not kept: the Transfer Syntax is no UID"):
        north.storbinary("STOR unnamed.dcm", io.BytesIO(unnamed))
    polyglot = b"MZ" + image[2:]
    assert north.storbinary("STOR a.exe", io.BytesIO(polyglot)) == "226 Kept."
    assert b"MZ" not in server.spool.kept[0][1][:200]
    assert north.nlst() == ["a.exe"]


def test_a_zip_is_kept_whole(server: Server, north: ftplib.FTP, image: bytes) -> None:
    """Every instance in it, resumed when it was cut; the rest is counted."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.dcm", image)
        archive.writestr("../../2.dcm", image)
        archive.writestr("autorun.inf", b"[autorun]")
    data = packed.getvalue()
    assert cut_off(north, "STOR cd.zip", data[:-30]).startswith("426")
    reply = north.storbinary("STOR cd.zip", io.BytesIO(data[-30:]), rest=len(data) - 30)
    assert reply == "226 Kept 2 instances, skipped 1 other files."
    assert len(server.spool.kept) == 2
    damaged = bytearray(data)
    damaged[2000:2100] = bytes(100)
    with pytest.raises(ftplib.error_perm, match="550 Not kept: 1 instances are kept, not all"):
        north.storbinary("STOR broken.zip", io.BytesIO(bytes(damaged)))


def test_active_mode_goes_to_the_caller_only(
    server: Server, north: ftplib.FTP, image: bytes
) -> None:
    """PORT works for the peer of the control connection, for no other address."""
    north.set_pasv(False)
    assert north.storbinary("STOR a.dcm", io.BytesIO(image)) == "226 Kept."
    with pytest.raises(ftplib.error_perm, match="501 Rejected"):
        north.sendport("10.0.0.1", 4000)


def test_guesses_are_counted(server: Server) -> None:
    """A wrong password is refused; after ten, the right one too, from that address."""

    def guess(_: int) -> None:
        with ftplib.FTP() as ftp, pytest.raises(ftplib.error_perm, match="530"):  # noqa: PT012
            ftp.connect("127.0.0.1", server.port, timeout=20)
            ftp.login("north", "wrong")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(guess, range(10)))
    with pytest.raises(ftplib.error_perm, match="530"):
        server.client()
    assert server.spool.alerts[0] == (
        "ftp sign-in refused",
        {"peer": "127.0.0.1", "account": "north", "reason": "wrong password", "facility": "NORTH"},
    )
    server.client("south").close()


def test_who_leaves_before_a_refusal_is_answered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes two seconds later, and finds nobody: nor whoever has the descriptor then."""
    raised: list[object] = []
    monkeypatch.setattr(_Control, "log_exception", lambda _self, where: raised.append(where))
    for words in (b"USER north\r\nPASS wrong\r\nQUIT\r\n", b"USER north\r\nPASS wrong\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
            sock.sendall(words)
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while sock.recv(4096):
                    pass
    time.sleep(2.5)
    assert not raised
    server.client("south").close()
