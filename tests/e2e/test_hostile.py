"""A running RSO among broken bytes, bombs and hostile names: it stays up, quick, and in its folders."""

import contextlib
import ftplib
import io
import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from pydicom.uid import generate_uid

from rso.dicom.requestor import Requestor
from rso.testing.hostile import CONTEXT, exchange, faults, post, processes, serves, withstands
from rso.testing.mutations import corpus, mutated, part10, zipped
from rso.testing.site import Site, free_port
from rso.testing.study import tiny_dataset
from rso.testing.tracing import mutant

pytestmark = pytest.mark.alone
CORPUS = Path(__file__).with_name("corpus")
SHORT = settings(
    max_examples=40, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
LONG = settings(SHORT, max_examples=3000, derandomize=False)


@pytest.fixture(scope="module")
def rso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One running site for all of this; at its end nothing went wrong inside."""
    made = Site(tmp_path_factory.mktemp("hostile"), free_port(), "plugins.ftp.tls=off")
    made.start("receive,web")
    before = processes(made)
    yield made
    assert processes(made) == before, "a process ended and was started again"
    assert made.stop() == 0
    assert faults(made) == ""


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


CRASHES = """
import os
import rso.dicom.association as association
real = association.read_command
def trusts(data):
    try:
        return real(data)
    except Exception:
        os._exit(1)
association.read_command = trusts
"""
DEEPER = """
import rso.dicom.elements as elements
elements.DEEPEST = 10**6
"""
BY_NAME = """
from pathlib import Path
from rso.engine.spool import LogBatch
real = LogBatch.append
def names(self, dataset, **said):
    uid = said.get("sop_instance_uid") or "none"
    Path(__file__).with_name("rso-" + uid.encode().hex()[:40]).touch()
    return real(self, dataset, **said)
LogBatch.append = names
"""


@contextlib.contextmanager
def defective(folder: Path, defect: str) -> Iterator[Site]:
    """A site with a defect."""
    made = Site(folder, free_port(), "plugins.ftp.tls=off")
    made.start("receive,web", environment=mutant(folder / "mutant", defect))
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.proof
def test_r12_finds_a_crash(tmp_path: Path) -> None:
    """R12 is able to fail: a broken command set ends the process."""
    with defective(tmp_path, CRASHES) as site:
        before = processes(site)
        SHORT(given(mutated(corpus(CORPUS / "pdu")))(lambda data: survives(site, data)))()
        assert processes(site) != before


def survives(site: Site, data: bytes) -> None:
    """One case at a process that may be gone."""
    with contextlib.suppress(ConnectionError):
        exchange(site.dicom, data)


@pytest.mark.proof
def test_r13_finds_what_is_let_in(tmp_path: Path) -> None:
    """R13 is able to fail: Sequences nest as deep as they like."""
    with (
        defective(tmp_path, DEEPER) as site,
        pytest.raises(AssertionError, match="nested by C-STORE"),
    ):
        withstands(site, 1)


@pytest.mark.proof
def test_r14_finds_a_file_elsewhere(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """R14 is able to fail: a file is called as a peer calls its instance."""
    with defective(tmp_path, BY_NAME) as site, pytest.raises(AssertionError, match="rso-"):
        stays_inside(site, Watch(site, peer("strace"), tmp_path / "trace"), 30, 0, 0)
