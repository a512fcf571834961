"""The SCP keeps the receivers' contract, and its own: TLS, refusals, bounds."""

import re
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import pytest
from rso_dicom_scp.plugin import DicomScp, DicomScpConfig, Tls

from rso.core.errors import TransportError
from rso.dicom.dimse import VERIFICATION
from rso.dicom.elements import IMPLICIT_LITTLE
from rso.dicom.requestor import Requestor
from rso.plugins import Receiver, ReceiverContext
from rso.testing.contracts import ReceiverContract
from rso.testing.modality import send_files
from rso.testing.spool import RecordingSpool


class TestDicomScp(ReceiverContract):
    """Contract."""

    def make(self, context: ReceiverContext) -> Receiver:
        """On a free port."""
        return DicomScp(DicomScpConfig(host="127.0.0.1", port=0), context)

    def port(self) -> int:
        """Where it listens."""
        found = re.search(r":(\d+)", self.addresses[0].removeprefix("dicom://"))
        assert found is not None
        return int(found[1])

    def deposit(self, receiver: Receiver, file: Path, *, known: bool = True) -> bool:
        """As a modality does."""
        try:
            answers = send_files(
                [file], host="127.0.0.1", port=self.port(),
                calling_ae_title="KNOWN" if known else "STRANGER", called_ae_title="RSO",
            )  # fmt: skip
        except TransportError:
            return False
        return set(answers.values()) == {0}

    async def test_strangers_are_told_one_thing_and_noted(
        self, receiver: Receiver, spool: RecordingSpool
    ) -> None:
        """A refusal is 1/1/3, and the audit learns why."""
        with pytest.raises(TransportError, match="1/1/3"):
            Requestor(
                "127.0.0.1", self.port(), called_ae_title="RSO", calling_ae_title="STRANGER",
                contexts=[(VERIFICATION, IMPLICIT_LITTLE)],
            )  # fmt: skip
        assert spool.alerts[0][0] == "association refused"

    async def test_lies_about_lengths_end_the_connection(
        self, receiver: Receiver, spool: RecordingSpool
    ) -> None:
        """A PDU of 4 GiB, a broken request and noise are closed, and the next peer is served."""
        for noise in (
            struct.pack(">BxL", 1, 0xFFFFFFFF),
            struct.pack(">BxL", 1, 80) + b"\xff" * 80,
            struct.pack(">BxL", 4, 12) + bytes(12),
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", self.port()), 10) as sock:
                sock.sendall(noise)
                while sock.recv(4096):
                    pass
        from rso.testing.contracts import sample_file  # noqa: PLC0415

        assert self.deposit(receiver, sample_file())


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    """The second port speaks TLS, shows who the client is, and a plain client gets nothing."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    seen = []

    def identify(connection: object) -> None:
        seen.append(connection)

    context = ReceiverContext(
        spool=RecordingSpool(), identify=identify, sources=list, data_dir=tmp_path
    )
    tls = Tls(certificate=str(certificate), key=str(key), ca=str(certificate), port=0)
    scp = DicomScp(DicomScpConfig(host="127.0.0.1", port=0, tls=tls), context)
    addresses = await scp.start()
    port = int(addresses[1].rpartition(":")[2])
    client = ssl.create_default_context(cafile=str(certificate))
    client.load_cert_chain(certificate, key)
    with pytest.raises(TransportError, match="1/1/3"):
        Requestor(
            "127.0.0.1", port, called_ae_title="RSO", calling_ae_title="CT",
            contexts=[(VERIFICATION, IMPLICIT_LITTLE)], context=client,
        )  # fmt: skip
    assert seen[0].tls  # type: ignore[attr-defined]
    assert len(seen[0].certificate_fingerprint) == 64  # type: ignore[attr-defined]
    with pytest.raises(TransportError):
        Requestor(
            "127.0.0.1", port, called_ae_title="RSO", calling_ae_title="CT",
            contexts=[(VERIFICATION, IMPLICIT_LITTLE)],
        )  # fmt: skip
    await scp.close()
