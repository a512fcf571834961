"""Broken bytes, bombs and an honest client among them: what tests throw at a running RSO."""

import base64
import contextlib
import errno
import ftplib
import http.client
import io
import itertools
import socket
import struct
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from rso.core.errors import TransportError
from rso.dicom.requestor import Requestor
from rso.testing.mutations import nested, part10, zipped
from rso.testing.site import Site
from rso.testing.study import CT_IMAGE_STORAGE, tiny_dataset

__all__ = [
    "CONTEXT",
    "LITTLE",
    "exchange",
    "faults",
    "post",
    "processes",
    "put",
    "serves",
    "store",
    "withstands",
]

LITTLE = str(ExplicitVRLittleEndian)
CONTEXT = (CT_IMAGE_STORAGE, LITTLE)
DEFLATED = "1.2.840.10008.1.2.1.99"
AUTHORIZATION = base64.b64encode(b"north-gateway:north's password").decode()


def faults(site: Site) -> str:
    """What went wrong inside, as its log has it; empty where nothing did."""
    log = (site.folder / "rso.log").read_text()
    for sign in ("Traceback", "association failed", '"level": "critical"'):
        if (place := log.find(sign)) >= 0:
            return log[max(place - 1000, 0) : place + 4000]
    return ""


def processes(site: Site) -> dict[str, int]:
    """The process of each role."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"rso.roles" in words and str(site.config).encode() in words:
                found[words[words.index(b"rso.roles") + 1].decode()] = int(folder.name)
    return found


def store(site: Site, uid: str, dataset: bytes, announced: str = "") -> int:
    """One instance over an association of its own; the status, or -1 where it was cut off."""
    try:
        requestor = Requestor(
            "127.0.0.1", site.dicom, called_ae_title="RSO", calling_ae_title="NORTHPACS",
            contexts=[CONTEXT],
        )  # fmt: skip
    except TransportError:
        return -1
    try:
        return requestor.store(CONTEXT[0], announced or uid, CONTEXT[1], [dataset]).status
    except TransportError:
        return -1
    finally:
        requestor.release()


def serves(site: Site) -> float:
    """Seconds for an honest instance."""
    began = time.monotonic()
    uid = generate_uid()
    assert store(site, uid, tiny_dataset(uid)) == 0
    return time.monotonic() - began


def exchange(port: int, data: bytes, *, seconds: float = 20.0) -> bytes:
    """Send bytes, say that no more come, and read until the server closes; it has to."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.settimeout(seconds)
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except OSError as exc:  # ended by the server already
            if exc.errno not in {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}:
                raise
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                answer += piece
    return answer


def post(site: Site, body: bytes, kind: str) -> int:
    """The status of an upload by a source."""
    connection = http.client.HTTPConnection("127.0.0.1", site.web, timeout=30)
    with contextlib.closing(connection):
        headers = {"Content-Type": kind, "Authorization": f"Basic {AUTHORIZATION}"}
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            connection.request("POST", "/dicomweb/studies", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        return -1


def bombs() -> dict[str, Callable[[Site], object]]:
    """What unpacks, nests or claims without end (T8, T9, T12), by the channel it comes on."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    flat = deflater.compress(bytes(100 << 20)) + deflater.flush()
    uid = generate_uid()
    lies = struct.pack("<HH2sHL", 8, 5, b"UN", 0, 0xFFFFFFF0) + tiny_dataset(uid)
    empty = struct.pack("<HH2sH", 8, 1, b"UL", 0) * 200_000
    bomb = zipped(("a.dcm", bytes(200 << 20)))
    many = zipped(*((f"{n}.dcm", b"") for n in range(20_000)), method=zipfile.ZIP_STORED)
    deep = nested(5000) + tiny_dataset(uid)
    kind = "application/zip"
    return {
        "deflated by STOW": lambda s: post(
            s, b"--B\r\nContent-Type: application/dicom\r\n\r\n" + part10(flat, DEFLATED)
            + b"\r\n--B--\r\n", "multipart/related; type=\"application/dicom\"; boundary=B"),
        "nested by C-STORE": lambda s: store(s, uid, deep),
        "lying length by C-STORE": lambda s: store(s, uid, lies),
        "many elements by C-STORE": lambda s: store(s, uid, empty),
        "ZIP of zeros": lambda s: post(s, bomb, kind),
        "ZIP of many": lambda s: post(s, many, kind),
        "ZIP in a ZIP": lambda s: post(s, zipped(("b.zip", bomb)), kind),
        "ZIP of zeros by FTP": lambda s: put(s, "bomb.zip", bomb),
        "deflated by FTP": lambda s: put(s, "bomb.dcm", part10(flat, DEFLATED)),
    }  # fmt: skip


def put(site: Site, name: str, data: bytes) -> int:
    """The reply code of an upload by FTP."""
    with ftplib.FTP(timeout=30) as ftp:  # noqa: S321  (loopback, in tests)
        ftp.connect("127.0.0.1", site.ftp)
        ftp.login("north", "north's password")
        try:
            return int(ftp.storbinary(f"STOR {name}", io.BytesIO(data))[:3])
        except ftplib.Error as exc:
            return int(str(exc)[:3])


def p95(values: list[float]) -> float:
    """The time that nineteen of twenty do not exceed."""
    return sorted(values)[int(len(values) * 0.95)]


def withstands(site: Site, seconds: float) -> None:
    """R13: each bomb is refused, and while they go off for so long, honest instances are served."""
    made = bombs()
    refused = {name: bomb(site) for name, bomb in made.items()}
    assert not {n: s for n, s in refused.items() if s in {0, 200, 226}}, refused
    calm = [serves(site) for _ in range(20)]
    stop = time.monotonic() + seconds
    thrown = itertools.count()

    def throw() -> None:
        for bomb in itertools.cycle(made.values()):
            if time.monotonic() > stop:
                return
            bomb(site)
            next(thrown)

    throwers = [threading.Thread(target=throw) for _ in range(2)]
    for thrower in throwers:
        thrower.start()
    hot = []
    while time.monotonic() < stop:
        hot.append(serves(site))
        time.sleep(0.02)
    for thrower in throwers:
        thrower.join()
    memory = {role: _peak(pid) >> 20 for role, pid in processes(site).items()}
    sys.stdout.write(
        f"{next(thrown)} bombs in {seconds:.0f} s: honest p95 {p95(calm):.3f} s before,"
        f" {p95(hot):.3f} s beside them; peak memory {memory} MB\n"
    )
    assert p95(hot) < max(1.0, 3 * p95(calm))
    assert max(memory.values()) < 700


def _peak(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) << 10
