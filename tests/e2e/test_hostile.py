"""A running RSO among broken bytes, bombs and hostile names: it stays up, quick, and in its folders."""

import base64
import contextlib
import errno
import ftplib
import http.client
import io
import itertools
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from rso.core.errors import TransportError
from rso.dicom.requestor import Requestor
from rso.testing.mutations import corpus, mutated, nested, part10, zipped
from rso.testing.site import Site, free_port
from rso.testing.study import CT_IMAGE_STORAGE, tiny_dataset

pytestmark = pytest.mark.alone
CORPUS = Path(__file__).with_name("corpus")
LITTLE = str(ExplicitVRLittleEndian)
CONTEXT = (CT_IMAGE_STORAGE, LITTLE)
DEFLATED = "1.2.840.10008.1.2.1.99"
SHORT = settings(
    max_examples=40, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
LONG = settings(SHORT, max_examples=3000, derandomize=False)
AUTHORIZATION = base64.b64encode(b"north-gateway:north's password").decode()


@pytest.fixture(scope="module")
def rso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One running site for all of this; at its end nothing went wrong inside."""
    made = Site(tmp_path_factory.mktemp("hostile"), free_port(), "plugins.ftp.tls=off")
    made.start("receive,web")
    before = processes(made)
    yield made
    assert processes(made) == before, "a process ended and was started again"
    assert made.stop() == 0
    log = (made.folder / "rso.log").read_text()
    for sign in ("Traceback", "association failed", '"level": "critical"'):
        place = log.find(sign)
        assert place < 0, log[max(place - 1000, 0) : place + 4000]


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


def multipart(site: Site, body: bytes) -> None:
    """Never an error of the server's own."""
    status = post(site, body, 'multipart/related; type="application/dicom"; boundary=B')
    assert 200 <= status < 500


TARGETS: dict[str, Callable[[Site, bytes], object]] = {
    "pdu": lambda site, data: exchange(site.dicom, data),
    "multipart": multipart,
    "ftp": lambda site, data: exchange(site.ftp, data),
}


def tried(site: Site, name: str, data: bytes) -> None:
    """One case; a connection that the server does not end is a TimeoutError."""
    TARGETS[name](site, data)


@pytest.mark.parametrize("name", TARGETS)
def test_broken_bytes_on_the_wire(rso: Site, name: str) -> None:
    """R12, short: kept cases and some dozens of broken ones; each connection ends, RSO serves on."""
    cases = corpus(CORPUS / name)
    for case in cases:
        TARGETS[name](rso, case)
    # A wrong password costs an FTP client two seconds.
    short = settings(SHORT, max_examples=12) if name == "ftp" else SHORT
    short(given(mutated(cases))(lambda data: tried(rso, name, data)))()
    serves(rso)


@pytest.mark.proof
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", TARGETS)
def test_many_broken_bytes_on_the_wire(rso: Site, name: str) -> None:
    """R12: 3,000 of each, others in every run."""
    LONG(given(mutated(corpus(CORPUS / name)))(lambda data: tried(rso, name, data)))()
    serves(rso)


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
    with ftplib.FTP(timeout=30) as ftp:
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


def test_bombs_do_not_go_off(rso: Site) -> None:
    """R13, short: six seconds of deflated, nested, lying and zipped bombs."""
    withstands(rso, 6)


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_bombs_for_a_minute(rso: Site) -> None:
    """R13: a minute of them."""
    rso.rso("ban", "clear", "127.0.0.1", "--json")  # what was guessed before, under this name
    withstands(rso, 60)


MARK = "hostile-mark"
PLACES = (
    "../",
    "../../../../../../tmp/",
    "/tmp/",
    "/etc/",
    "..\\..\\",
    "%2e%2e/",
    "~/",
    "./",
    "a\0/",
)
CALLS = (
    "open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,"
    "symlinkat,mknod,mknodat,unlink,unlinkat,truncate,rmdir"
)


class Watch:
    """Every change to the file system by RSO's processes, as strace sees it; the oracle of R14."""

    def __init__(self, site: Site, strace: str, out: Path) -> None:
        self._site, self._out = site, out
        pids = [word for pid in processes(site).values() for word in ("-p", str(pid))]
        self._process = subprocess.Popen(
            [strace, "-f", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", out, *pids],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        for _ in pids[::2]:
            assert "attached" in self._process.stderr.readline()

    def outside(self) -> tuple[list[str], int]:
        """Lines that change something elsewhere than in the site's data, and how many changed it."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=60)
        data = str(self._site.config.parent)
        bad, changes = [], 0
        for line in self._out.read_text(errors="replace").splitlines():
            call = re.search(r"\b(\w+)\((.*)", line)
            if call is None or (
                call[1].startswith("open") and not re.search("O_WRONLY|O_RDWR|O_CREAT", line)
            ):
                continue
            changes += 1
            for path in re.findall(r'"([^"]*)"', call[2]):
                base = re.search(r"<([^>]*)>", call[2])
                whole = path if path.startswith("/") else f"{base[1] if base else ''}/{path}"
                if not (
                    whole.startswith(f"{data}/") and "/../" not in whole
                ) and not whole.startswith(("/dev/", "/proc/")):
                    bad.append(line)
        return bad, changes


def hostile(number: int) -> str:
    """A name that wants to be somewhere else."""
    return f"{PLACES[number % len(PLACES)]}{MARK}-{number}"


def stays_inside(site: Site, watch: Watch, c_store: int, http_parts: int, ftp: int) -> None:
    """R14: hostile names on three channels, and no change of the file system but in the data."""
    counts = dict.fromkeys(("C-STORE", "HTTP", "ZIP", "FTP"), 0)
    kept = 0
    numbers = iter(range(10_000_000))
    while counts["C-STORE"] < c_store:
        requestor = Requestor(
            "127.0.0.1", site.dicom, called_ae_title="RSO", calling_ae_title="NORTHPACS",
            contexts=[CONTEXT],
        )  # fmt: skip
        for number in itertools.islice(numbers, min(500, c_store - counts["C-STORE"])):
            name = hostile(number)
            uid = name if number % 3 else generate_uid()
            dataset = tiny_dataset(
                uid, study=name.encode() if number % 3 == 1 else b"1.2.3", series=b"1.2.4",
                name=name.encode(), patient_id=name.encode(),
            )  # fmt: skip
            kept += requestor.store(CONTEXT[0], uid, CONTEXT[1], [dataset]).status == 0
            counts["C-STORE"] += 1
        requestor.release()
    while counts["HTTP"] + counts["ZIP"] < http_parts:
        names = [hostile(number) for number in itertools.islice(numbers, 100)]
        files = [(n, part10(tiny_dataset(generate_uid(), name=n.encode()))) for n in names]
        body = b"".join(
            b"--B\r\nContent-Type: application/dicom\r\nContent-Location: " + quoted
            + b'\r\nContent-Disposition: attachment; filename="' + quoted + b'"\r\n\r\n'
            + data + b"\r\n"
            for name, data in files
            for quoted in [name.replace("\0", "").encode()]
        ) + b"--B--\r\n"  # fmt: skip
        assert post(site, body, 'multipart/related; type="application/dicom"; boundary=B') < 500
        counts["HTTP"] += len(names)
        assert post(site, zipped(*files), "application/zip") < 500
        counts["ZIP"] += len(names)
    client = ftplib.FTP(timeout=30)
    client.connect("127.0.0.1", site.ftp)
    client.login("north", "north's password")
    for number in itertools.islice(numbers, ftp):
        name = hostile(number)
        data = part10(tiny_dataset(generate_uid()))
        for act in (
            lambda name=name: client.mkd(name),
            lambda name=name, data=data: client.storbinary(f"STOR {name}", io.BytesIO(data)),
            lambda name=name: client.rename(name, f"/etc/{name}"),
        ):
            with contextlib.suppress(ftplib.Error):
                act()
        counts["FTP"] += 1
    client.close()
    bad, changes = watch.outside()
    sys.stdout.write(
        f"hostile names {counts}, {kept} kept: {len(bad)} of {changes} changes outside\n"
    )
    assert changes > kept / 10
    assert bad == []
    found = [
        p for root in ("/tmp", "/etc", ".", str(Path.home())) for p in Path(root).glob(f"*{MARK}*")
    ]
    assert found == []
    assert [p for p in site.config.parent.rglob("*") if MARK in p.name] == []


def test_hostile_names_stay_inside(rso: Site, peer: Callable[[str], str], tmp_path: Path) -> None:
    """R14, short: 2,000 names and UIDs; strace sees no write outside the site's folder."""
    stays_inside(rso, Watch(rso, peer("strace"), tmp_path / "trace"), 1200, 600, 200)


@pytest.mark.proof
@pytest.mark.timeout(3000)
def test_100000_hostile_names_stay_inside(
    rso: Site, peer: Callable[[str], str], tmp_path: Path
) -> None:
    """R14: 100,000 of them."""
    stays_inside(rso, Watch(rso, peer("strace"), tmp_path / "trace"), 80_000, 15_000, 5_000)
