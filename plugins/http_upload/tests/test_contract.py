"""The uploader keeps the receivers' contract, and answers hostile bodies in HTTP's terms."""

import base64
import contextlib
import gzip
import http.client
import io
import json
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from argon2 import PasswordHasher
from litestar import Litestar
from rso_http_upload.plugin import HttpUpload, HttpUploadConfig, rso_register_routes

from rso.plugins import Kind, Receiver, ReceiverContext, Source
from rso.settings import Web as WebSection
from rso.testing.contracts import ReceiverContract, sample_file
from rso.testing.spool import RecordingSpool
from rso.web.errors import answer_error

_PASSWORD = "correct horse"
_HASH = PasswordHasher(time_cost=1, memory_cost=64).hash(_PASSWORD)
Answer = tuple[int, Any]


class Web:
    """The receiver's routes behind a real server."""

    def __init__(self, receiver: HttpUpload) -> None:
        app = Litestar(
            route_handlers=rso_register_routes(), exception_handlers={Exception: answer_error}
        )
        app.state.receivers = {receiver.name: receiver}
        app.state.engine = SimpleNamespace(settings=SimpleNamespace(web=WebSection(), base_url=""))
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "Web":
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.02)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def post(
        self, path: str, body: Any, kind: str, *, name: str = "KNOWN", **headers: str
    ) -> Answer:
        """Status and JSON."""
        secret = base64.b64encode(f"{name}:{_PASSWORD}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            sent = {"Content-Type": kind, "Authorization": f"Basic {secret}", **headers}
            connection.request("POST", path, body, sent)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")

    def parts(self, *parts: bytes, boundary: str = "B", **more: str) -> Answer:
        """Store instances."""
        body = b"".join(
            f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part + b"\r\n"
            for part in parts
        )
        kind = 'multipart/related; type="application/dicom"; boundary=B'
        return self.post("/dicomweb/studies", body + f"--{boundary}--\r\n".encode(), kind, **more)

    def zip(self, data: bytes) -> Answer:
        """Store a ZIP."""
        return self.post("/dicomweb/studies", data, "application/zip")


class TestHttpUpload(ReceiverContract):
    """Contract."""

    def channel(self) -> str:
        """Its name."""
        return "http_upload"

    def source(self) -> Source:
        """With a password."""
        return Source(
            facility="NORTH", channel="http_upload", identity="KNOWN", kind=Kind.INTEGRATION,
            password_hash=_HASH,
        )  # fmt: skip

    def make(self, context: ReceiverContext) -> Receiver:
        """With bounds that a test can reach."""
        return HttpUpload(HttpUploadConfig(most_parts=40, most_bytes=32 << 20), context)

    def deposit(self, receiver: Receiver, file: Path, *, known: bool = True) -> bool:
        """By STOW-RS."""
        assert isinstance(receiver, HttpUpload)
        with Web(receiver) as web:
            name = "KNOWN" if known else "STRANGER"
            status, _ = web.parts(file.read_bytes(), name=name)
            return status == 200

    @pytest.fixture
    def web(self, receiver: Receiver) -> Iterator[Web]:
        """A running server."""
        assert isinstance(receiver, HttpUpload)
        with Web(receiver) as web:
            yield web

    @pytest.fixture
    def image(self) -> bytes:
        """A real instance."""
        return sample_file().read_bytes()

    def test_hostile_bodies_are_answered(
        self, web: Web, spool: RecordingSpool, image: bytes, receiver: Receiver
    ) -> None:
        """Each with a status and a reason of its own; nothing is kept and nothing is left."""
        kind = 'multipart/related; type="application/dicom"; boundary=B'
        cases = [
            (web.parts(*[b"x"] * 41), 413, "too much in one request"),
            (web.parts(image, boundary="WRONG"), 400, "multipart body is broken"),
            (web.post("/dicomweb/studies", b"", kind), 400, "multipart body is broken"),
            (web.post("/dicomweb/studies", b"--B--\r\n", kind), 400, "no DICOM instance"),
            (web.post("/dicomweb/studies", b"", 'multipart/related; boundary=""'), 400, "boundary"),
            (web.post("/dicomweb/studies", gzip.compress(image), kind,
                      **{"Content-Encoding": "gzip"}), 415, "compressed body"),
            (web.post("/dicomweb/studies", b"{}", "application/json"), 415, "multipart/related"),
            (web.parts(b"x" * 1000), 409, "no DICM at byte 128"),
            (web.parts(image.replace(b"1.2.840.10008.1.2.1\0", bytes(20), 1)), 409,
             "Transfer Syntax is no UID"),
            (web.parts(b"\0" * (33 << 20)), 413, "too large"),
            (web.post("/dicomweb/studies", iter([b"\0" * (1 << 20)] * 33), kind), 413, "too large"),
            (web.zip(b"PK\x03\x04" + bytes(500)), 400, "not a whole ZIP"),
        ]  # fmt: skip
        for (status, answer), wanted, reason in cases:
            said = answer.get("detail") or " ".join(answer.get("reasons", []))
            assert status == wanted, said
            assert reason in said
        assert not spool.kept
        assert not list(receiver.context.data_dir.iterdir())
        assert web.parts(image)[0] == 200

    def test_a_zip_is_stored_without_its_names(
        self, web: Web, spool: RecordingSpool, image: bytes, receiver: Receiver
    ) -> None:
        """Slips are labels, other files are counted, a ZIP in the ZIP stays closed."""
        inner = packed([("a.dcm", image)])
        data = packed([("../../1.dcm", image), ("/abs/2.dcm", image), ("in.zip", inner),
                       ("readme.txt", b"hello")])  # fmt: skip
        status, answer = web.zip(data)
        assert (status, answer["skipped"]) == (200, 2)
        assert len(spool.kept) == 2
        assert not list(receiver.context.data_dir.iterdir())

    def test_zip_bombs_are_not_unpacked(
        self, web: Web, spool: RecordingSpool, image: bytes
    ) -> None:
        """Ratio, number, overlap, links and encryption are seen before anything is read."""
        bomb = packed([(str(n), bytes(64 << 20)) for n in range(5)])
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        linked = io.BytesIO()
        with zipfile.ZipFile(linked, "w") as archive:
            archive.writestr(link, "/etc/passwd")
        for data, reason in (
            (bomb, "larger unpacked"),
            (linked.getvalue(), "symbolic link"),
            (overlapped(image), "overlap"),
            (packed([(str(n), b"") for n in range(50_001)]), "more than 50000"),
        ):
            status, answer = web.zip(data)
            assert status == 400
            assert reason in answer["detail"]
        encrypted = bytearray(packed([("a.dcm", image)]))
        encrypted[encrypted.rindex(b"PK\x01\x02") + 8] |= 1
        status, answer = web.zip(bytes(encrypted))
        assert (status, answer["reasons"]) == (409, ["encrypted"])
        damaged = bytearray(packed([("a.dcm", image), ("b.dcm", image)]))
        damaged[2000:2100] = bytes(100)
        status, answer = web.zip(bytes(damaged))
        assert status == 202  # the other is kept; the broken one is not called skipped
        assert "file 1 of the ZIP is broken" in answer["reasons"][0]
        assert len(spool.kept) == 1
        spool.kept.clear()
        assert not spool.kept


def packed(files: list[tuple[str, bytes]]) -> bytes:
    """A ZIP of these."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return made.getvalue()


def overlapped(image: bytes) -> bytes:
    """A ZIP whose two entries share their bytes."""
    data = packed([("a", image)])
    entry = data[data.index(b"PK\x01\x02") : data.index(b"PK\x05\x06")]
    end = bytearray(data[data.index(b"PK\x05\x06") :])
    struct.pack_into("<HHL", end, 8, 2, 2, 2 * len(entry))
    return data[: data.index(b"PK\x01\x02")] + entry * 2 + bytes(end)
