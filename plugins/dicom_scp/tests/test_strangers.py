"""What a peer can cost before it is known, and whom a ban keeps out."""

import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from rso_dicom_scp.plugin import DicomScp, DicomScpConfig

from rso.core.source import identify_source
from rso.dicom.acceptor import Refusal, Request
from rso.plugins import Bans, Connection, Kind, ReceiverContext, Source
from rso.testing.spool import RecordingSpool

ACCEPT, REJECT = 2, 3
PIN = "ab" * 32


def item(kind: int, value: bytes) -> bytes:
    """An item or sub-item of an A-ASSOCIATE-RQ."""
    return bytes((kind, 0)) + len(value).to_bytes(2, "big") + value


def request_pdu(name: str, contexts: Sequence[Sequence[bytes]]) -> bytes:
    """An A-ASSOCIATE-RQ with these Transfer Syntaxes for Verification."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, syntaxes in enumerate(contexts):
        inner = item(0x30, b"1.2.840.10008.1.1") + b"".join(item(0x40, s) for s in syntaxes)
        items += item(0x20, bytes((2 * number + 1, 0, 0, 0)) + inner)
    items += item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3"))
    body = b"\0\1\0\0" + b"RSO".ljust(16) + name.encode().ljust(16) + bytes(32) + items
    return struct.pack(">BxL", 1, len(body)) + body


HOSTILE = [[bytes((16 + n // 110, 16 + n % 110)) for n in range(10_900)]] * 4


def source(identity: str = "KNOWN", **more: object) -> Source:
    """A declared source on loopback, unless something else is said."""
    values = {"networks": ("127.0.0.0/8",), **more}
    return Source(
        facility="NORTH", channel="dicom_scp", identity=identity, kind=Kind.TECHNICIAN,
        **values,  # type: ignore[arg-type]
    )  # fmt: skip


Make = Callable[..., DicomScp]


@pytest.fixture
def spool() -> RecordingSpool:
    """What the SCP deposits into."""
    return RecordingSpool()


@pytest.fixture
def make(spool: RecordingSpool, tmp_path: Path) -> Make:
    """An SCP for these sources."""

    def made(*sources: Source) -> DicomScp:
        def identify(connection: Connection) -> Source | None:
            return identify_source(connection, sources)

        context = ReceiverContext(
            spool=spool, identify=identify, sources=lambda: sources, data_dir=tmp_path
        )
        return DicomScp(DicomScpConfig(host="127.0.0.1", port=0), context)

    return made


@pytest.fixture
async def port(make: Make) -> AsyncIterator[int]:
    """Where an SCP with one source on loopback listens."""
    scp = make(source())
    addresses = await scp.start()
    yield int(addresses[0].removeprefix("dicom://").split(" ")[0].rpartition(":")[2])
    await scp.close()


def answer(port: int, pdu: bytes) -> bytes:
    """The first bytes of the answer; empty when the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        try:
            sock.sendall(pdu)
            return sock.recv(10)
        except OSError:
            return b""


@pytest.mark.parametrize("name", ["KNOWN", "STRANGER"])
async def test_an_endless_offer_costs_next_to_nothing(
    port: int, spool: RecordingSpool, name: str
) -> None:
    """Tens of thousands of Transfer Syntaxes are refused like any peer, counted, and told of."""
    began = time.process_time()
    assert answer(port, request_pdu(name, HOSTILE)) == struct.pack(">BxLxBBB", REJECT, 4, 1, 1, 3)
    assert time.process_time() - began < 1.0
    kind, facts = spool.alerts[0]
    assert kind == "association refused"
    assert ("Transfer Syntaxes" in facts["reason"]) == (name == "KNOWN")


async def test_a_usual_offer_is_accepted(port: int) -> None:
    """All that may be offered at once is accepted."""
    offer = [[b"1.2.840.10008.1.2", *(b"1.2.%d" % n for n in range(100))]] * 128
    assert answer(port, request_pdu("KNOWN", offer))[0] == ACCEPT


async def test_a_banned_address_is_not_heard(make: Make, tmp_path: Path) -> None:
    """Its connection is closed before it says anything; another address is served."""
    scp = make(source(networks=("10.0.0.0/8",)))
    addresses = await scp.start()
    port = int(addresses[0].removeprefix("dicom://").split(" ")[0].rpartition(":")[2])
    pdu = request_pdu("KNOWN", [[b"1.2.840.10008.1.2"]])
    assert answer(port, pdu)[0] == REJECT
    bans = Bans(tmp_path / "bans", after=1)
    for _ in range(5):
        bans.failed("127.0.0.1", "X", stranger=True)
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        assert sock.recv(10) == b""
    await scp.close()
    assert not scp.turns_away("10.1.1.1", "")


def test_who_tries_again_and_again_is_not_banned_for_ever(tmp_path: Path) -> None:
    """A device that tries by itself gets in when its ban ends; under other names it does not."""
    bans = Bans(tmp_path / "bans", after=3, seconds=0.5)
    for _ in range(3):
        bans.failed("10.1.1.1", "CT", stranger=True)
    until = time.monotonic() + 5
    while bans.banned("10.1.1.1", "CT") and time.monotonic() < until:
        bans.failed("10.1.1.1", "CT")
        time.sleep(0.02)
    assert time.monotonic() < until
    for _ in range(15):
        bans.failed("10.1.1.1", "CT", stranger=True)
    assert bans.banned("10.1.1.1", "MR")  # the whole address


def test_a_known_certificate_speaks_for_a_banned_address(make: Make, tmp_path: Path) -> None:
    """Behind the stranger's address may stand a device that is bound to its certificate."""
    scp = make(source(networks=(), certificate_fingerprint=PIN))
    bans = Bans(tmp_path / "bans", after=1)
    for _ in range(5):
        bans.failed("203.0.113.7", "X", stranger=True)
    assert scp.turns_away("203.0.113.7", "")
    assert not scp.turns_away("203.0.113.7", None)  # it has not been able to show one
    assert scp.turns_away("203.0.113.7", "cd" * 32)
    assert not scp.turns_away("203.0.113.7", PIN)
    assert make(source()).turns_away("203.0.113.7", None)  # no certificate would help it


def test_a_ban_of_a_name_spares_who_shows_its_certificate(make: Make, tmp_path: Path) -> None:
    """Somebody behind the same address claims the name; the device that is bound gets in."""
    loose = source("LOOSE", networks=("203.0.113.0/24",))
    scp = make(source(networks=(), certificate_fingerprint=PIN), loose)
    bans = Bans(tmp_path / "bans", after=1)
    for name in ("KNOWN", "LOOSE"):
        bans.failed("203.0.113.7", name)

    def refused(name: str, fingerprint: str) -> bool:
        request = Request(
            calling_ae_title=name, called_ae_title="RSO", peer_address="203.0.113.7", tls=True,
            certificate_fingerprint=fingerprint,
        )  # fmt: skip
        return isinstance(scp.admit(request), Refusal)

    assert not refused("KNOWN", PIN)
    assert refused("KNOWN", "")
    assert refused("KNOWN", "cd" * 32)
    assert refused("LOOSE", PIN)  # its certificate is not what tells this source
