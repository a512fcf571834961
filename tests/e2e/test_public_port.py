"""The public port with real clients: TLS, certificates, quotas, bans, and why somebody is refused."""

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage, Verification

from rso.dicom.dimse import VERIFICATION
from rso.dicom.elements import IMPLICIT_LITTLE
from rso.dicom.requestor import Requestor
from rso.testing.certificates import make_certificate
from rso.testing.site import Site, free_port, wait_for
from rso.testing.storage import Ours
from rso.testing.study import make_study

pytestmark = [
    pytest.mark.alone,
    # pynetdicom leaves the sockets of broken TLS connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SOURCES = """
[[facility]]
code = "EAST"
sources = [
  {{ channel = "dicom_scp", identity = "ROAMER", kind = "technician", certificate = {{ file = "{roamer}" }} }},
  {{ channel = "dicom_scp", identity = "FEW", kind = "technician", networks = ["127.0.0.1/32"], quota = {{ associations = 2 }} }},
  {{ channel = "dicom_scp", identity = "LITTLE", kind = "technician", networks = ["127.0.0.1/32"], quota = {{ instances_per_day = 3 }} }},
  {{ channel = "dicom_scp", identity = "SHARED", kind = "technician", networks = ["127.0.0.1/32"], called_ae_title = "EAST" }},
]

[[facility]]
code = "WEST"
quota = {{ bytes_per_day = 60000 }}
sources = [
  {{ channel = "dicom_scp", identity = "SHARED", kind = "technician", networks = ["127.0.0.1/32"], called_ae_title = "WEST" }},
  {{ channel = "dicom_scp", identity = "PLAIN", kind = "technician", networks = ["127.0.0.1/32"] }},
]
"""


class Port(Site):
    """A site with the TLS port and its certificates."""

    def __init__(self, folder: Path) -> None:
        self.tls = free_port()
        self.ca = make_certificate(folder, "ca")
        self.server = make_certificate(folder, "server", days=20, issuer=self.ca)
        self.roamer = make_certificate(folder, "roamer", days=10)
        self.other = make_certificate(folder, "other", issuer=self.ca)
        self.unknown = make_certificate(folder, "unknown")
        super().__init__(
            folder, free_port(),
            f"plugins.dicom_scp.tls.certificate={self.server[0]}",
            f"plugins.dicom_scp.tls.key={self.server[1]}",
            f"plugins.dicom_scp.tls.ca={self.ca[0]}",
            f"plugins.dicom_scp.tls.port={self.tls}",
        )  # fmt: skip
        site = folder / "east.toml"
        site.write_text(SOURCES.format(roamer=self.roamer[0]))
        self.rso("load", str(site), "--json")

    def client(self, pair: tuple[Path, Path] | None, **versions: Any) -> ssl.SSLContext:
        """A client's TLS context."""
        context = ssl.create_default_context(cafile=str(self.ca[0]))
        if pair:
            context.load_cert_chain(*pair)
        for name, value in versions.items():
            setattr(context, name, value)
        return context

    def checks(self, begins: str) -> list[dict[str, Any]]:
        """What ``rso check`` says under names that begin like this."""
        done = self.run("check", "--json")
        return [c for c in json.loads(done.stdout)["checks"] if c["name"].startswith(begins)]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    """One running site for all of this."""
    made = Port(tmp_path_factory.mktemp("port"))
    made.start("receive,work")
    yield made
    assert made.stop() == 0


def associate(
    port: Port, calling: str, *, called: str = "RSO", tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
) -> Association:  # fmt: skip
    """An association as pynetdicom asks for it."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(Verification)
    ae.add_requested_context(CTImageStorage, pydicom.uid.ExplicitVRLittleEndian)
    return ae.associate(
        "127.0.0.1", port.tls if tls else port.dicom, ae_title=called,
        tls_args=(tls, "127.0.0.1") if tls else None, bind_address=(address, 0),
    )  # fmt: skip


def instance(samples: Path) -> pydicom.Dataset:
    """A new instance."""
    dataset = pydicom.dcmread(samples / "CT_small.dcm")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return dataset


def refusal(association: Association) -> tuple[int, int, int]:
    """Result, source and reason of an A-ASSOCIATE-RJ."""
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def test_tls_binds_a_certificate_to_a_source(
    port: Port, samples: Path, peer: Callable[[str], str], tmp_path: Path
) -> None:
    """A pinned certificate gets in over TLS 1.2 and 1.3, from DCMTK and pynetdicom; none else."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        tls = port.client(port.roamer, minimum_version=version, maximum_version=version)
        association = associate(port, "ROAMER", tls=tls)
        assert association.is_established
        assert association.send_c_store(instance(samples)).Status == 0
        association.release()
    file = tmp_path / "one.dcm"
    instance(samples).save_as(file)
    for profile in ("+py", "+px", "+pz"):
        done = subprocess.run(
            [peer("storescu"), "-aet", "ROAMER", "-aec", "RSO", "+tls", *map(str, port.roamer[::-1]),
             profile, "+cf", port.ca[0], "127.0.0.1", str(port.tls), file],
            capture_output=True, text=True, check=False, timeout=30,
            env={**os.environ, "TCP_NODELAY": "1"},
        )  # fmt: skip
        assert done.returncode == 0, (profile, done.stderr)
    assert refusal(associate(port, "ROAMER", tls=port.client(None))) == (1, 1, 3)
    assert refusal(associate(port, "ROAMER", tls=port.client(port.other))) == (1, 1, 3)
    assert refusal(associate(port, "ROAMER")) == (1, 1, 3)
    assert associate(port, "ROAMER", tls=port.client(port.unknown)).is_aborted
    said = wait_for(lambda: port.checks("association refused: ROAMER"))
    assert "did not show the certificate that it is bound to" in said[0]["detail"]
    said = wait_for(lambda: port.checks("association refused: a peer from 127.0.0.1"))
    assert "TLS" in said[0]["detail"]


def test_tls_is_what_bcp_195_asks(port: Port) -> None:
    """Older versions, other suites, renegotiation, compression and resumption are not offered."""

    def hands(context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", port.tls), 5)
        return context.wrap_socket(sock, server_hostname="127.0.0.1", session=session)

    old = port.client(port.roamer, minimum_version=ssl.TLSVersion.TLSv1_2)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    weak = port.client(port.roamer, maximum_version=ssl.TLSVersion.TLSv1_2)
    weak.set_ciphers("AES256-SHA:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA")
    for context in (old, weak):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            hands(context)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = port.client(port.roamer, minimum_version=version, maximum_version=version)
        with hands(context) as first:
            assert first.compression() is None
            assert first.session is None or not first.session.has_ticket
            # Not even while the connection of the session stands.
            if first.session is not None:
                with hands(context, first.session) as second:
                    assert not second.session_reused
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port.tls}", "-tls1_2", "-CAfile",
         port.ca[0], "-legacy_renegotiation"],
        input=b"R\n", capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert b"no renegotiation" in done.stderr + done.stdout


def test_certificates_are_renewed_under_way(port: Port, samples: Path) -> None:
    """New files are shown to the next client; the association that stands goes on."""
    standing = associate(port, "ROAMER", tls=port.client(port.roamer))
    before = ssl.get_server_certificate(("127.0.0.1", port.tls))
    new = make_certificate(port.folder, "renewed", days=400, issuer=port.ca)
    for fresh, old in zip(new, port.server, strict=True):
        fresh.replace(old)
    assert wait_for(lambda: ssl.get_server_certificate(("127.0.0.1", port.tls))) != before
    assert standing.send_c_store(instance(samples)).Status == 0
    standing.release()
    port.server[0].write_text("nonsense")
    broken = associate(port, "ROAMER", tls=port.client(port.roamer))
    assert broken.is_established  # the last good ones serve on
    broken.release()
    assert not port.checks("certificate of dicom_scp")[0]["ok"]
    make_certificate(port.folder, "server", days=20, issuer=port.ca)


def test_silent_handshakes_hold_nobody_up(port: Port) -> None:
    """T1: behind 40 clients that never speak, a handshake takes a moment; they are gone in 5 s."""
    silent = [socket.create_connection(("127.0.0.1", port.tls), 5) for _ in range(40)]
    began = time.monotonic()
    took = []
    for _ in range(5):
        start = time.monotonic()
        one = associate(port, "ROAMER", tls=port.client(port.roamer))
        assert one.is_established
        took.append(time.monotonic() - start)
        one.release()
    assert max(took) < 1.0
    for sock in silent:
        sock.settimeout(10)
        assert sock.recv(1) == b""
        sock.close()
    assert time.monotonic() - began < 8


def test_check_shows_when_certificates_end(port: Port) -> None:
    """`rso check` warns of certificates that end within a month, the server's and a client's."""
    (shown,) = port.checks("certificate of dicom_scp")
    (pinned,) = port.checks("certificate of source dicom_scp/ROAMER")
    assert shown["ok"]
    assert shown["warning"]
    assert "in 19 days" in shown["detail"]
    assert "in 9 days" in pinned["detail"]


def test_associations_at_once_are_capped(port: Port) -> None:
    """The third of two is told to come back (2/3/2); when one ends there is room again."""
    held = [associate(port, "FEW") for _ in range(2)]
    assert all(a.is_established for a in held)
    assert refusal(associate(port, "FEW")) == (2, 3, 2)
    (usage,) = port.checks("quota of EAST/dicom_scp/FEW")
    assert usage["detail"] == "2 of 2 associations now"
    held[0].release()
    again = wait_for(lambda: (a := associate(port, "FEW")).is_established and a)
    for association in (again, held[1]):
        association.release()


def test_quotas_of_a_day_lose_nothing(port: Port, samples: Path, tmp_path: Path) -> None:
    """What is over is answered A700 and the next association 2/3/2; what was answered 0 is there."""

    def answers(calling: str, count: int) -> list[int]:
        found: dict[str, int] = {}
        files = make_study(samples / "CT_small.dcm", tmp_path / calling, count)
        Ours(port, calling).send(files, found)
        return list(found.values())

    assert answers("LITTLE", 5) == [0, 0, 0, 0xA700, 0xA700]
    assert refusal(associate(port, "LITTLE")) == (2, 3, 2)
    (usage,) = port.checks("quota of EAST/dicom_scp/LITTLE")
    assert usage["detail"] == "3 of 3 instances today"
    assert usage["warning"]
    wait_for(lambda: port.checks("quota exceeded: dicom_scp/LITTLE"))
    assert answers("PLAIN", 2) == [0, 0xA700]  # a facility's bytes: one of 39 kB fits, two do not


def test_called_ae_title_tells_facilities_apart(port: Port) -> None:
    """One AE title from one address is EAST's or WEST's by what it calls, and nobody's otherwise."""
    for called in ("EAST", "WEST"):
        association = associate(port, "SHARED", called=called)
        if called == "EAST":
            assert association.is_established
            association.release()
        else:
            assert association.is_established or refusal(association) == (2, 3, 2)
    assert refusal(associate(port, "SHARED", called="NORTH")) == (1, 1, 3)
    said = wait_for(lambda: port.checks("association refused: SHARED"))
    assert "it called NORTH instead of EAST; it called NORTH instead of WEST" in said[0]["detail"]


def test_a_refusal_is_explained(port: Port) -> None:
    """`rso check` says in words why a source was refused."""
    assert refusal(associate(port, "FEW", address="127.0.0.9")) == (1, 1, 3)
    said = wait_for(lambda: port.checks("association refused: FEW from 127.0.0.9"))
    assert "FEW: it came from 127.0.0.9, which is in none of its networks" in said[0]["detail"]
    assert said[0]["ok"]
    assert "warning" in port.run("check").stdout


def test_bans_are_seen_and_lifted(port: Port) -> None:
    """Twenty refusals ban a name at its address, but no neighbour and not who proves the name."""
    for _ in range(20):
        with pytest.raises(Exception, match="1/1/3"):
            Requestor(
                "127.0.0.1", port.dicom, called_ae_title="RSO", calling_ae_title="ROAMER",
                contexts=[(VERIFICATION, IMPLICIT_LITTLE)],
            )  # fmt: skip
    (ban,) = port.rso("ban", "list", "--json")["bans"]
    assert (ban["channel"], ban["address"], ban["name"]) == ("dicom_scp", "127.0.0.1", "ROAMER")
    assert port.checks("ban on dicom_scp")[0]["warning"]
    for neighbour in (
        associate(port, "FEW"),
        associate(port, "ROAMER", tls=port.client(port.roamer)),  # its certificate speaks for it
    ):
        assert neighbour.is_established
        neighbour.release()
    assert port.rso("ban", "clear", "127.0.0.1", "--json") == {"lifted": 1}
    assert port.rso("ban", "list", "--json")["bans"] == []
