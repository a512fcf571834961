"""Many at once: clients that give nothing hold nobody up, and hundreds of associations all succeed."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from rso.core.errors import TransportError
from rso.dicom.requestor import Requestor
from rso.testing.crowd import Crowd
from rso.testing.site import Site, free_port, wait_for
from rso.testing.storage import running_with
from rso.testing.study import CT_IMAGE_STORAGE, tiny_dataset

pytestmark = pytest.mark.alone
CONTEXT = (CT_IMAGE_STORAGE, str(ExplicitVRLittleEndian))


def receive_process(site: Site) -> int:
    """The process that receives."""
    mine = f"rso.roles\0receive\x000\0{site.config}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mine in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError("there is no receive process")


def memory(pid: int) -> int:
    """Bytes of memory that a process has."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) << 10


def threads_and_descriptors(pid: int) -> tuple[int, int]:
    """How many of each a process has."""
    own = Path(f"/proc/{pid}")
    return sum(1 for _ in (own / "task").iterdir()), sum(1 for _ in (own / "fd").iterdir())


def store_one(port: int) -> float:
    """Seconds for an association with one instance, as an honest modality has it."""
    began = time.monotonic()
    uid = generate_uid()
    requestor = Requestor(
        "127.0.0.1", port, called_ae_title="RSO", calling_ae_title="NORTHPACS",
        contexts=[CONTEXT], answer_seconds=20.0,
    )  # fmt: skip
    try:
        assert requestor.store(CONTEXT[0], uid, CONTEXT[1], [tiny_dataset(uid)]).status == 0
    finally:
        requestor.release()
    return time.monotonic() - began


def percentile(values: list[float], share: float) -> float:
    """The value that so many do not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


@pytest.fixture
def port(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site that receives, and takes in if asked for."""
    made = Site(tmp_path, free_port())
    made.start(getattr(request, "param", "receive"))
    yield made
    assert made.stop() == 0


def crowd_out(port: int, count: int, probes: int) -> tuple[list[float], list[float], int]:
    """Honest times beside a crowd, how long its members lived, and how many never ended."""
    with Crowd(port, count) as crowd:
        took = []
        for _ in range(probes):
            try:
                took.append(store_one(port))
            except (TransportError, AssertionError):
                took.append(float("inf"))
        until = time.monotonic() + 65
        while crowd.alive and time.monotonic() < until:
            time.sleep(0.5)
        return took, crowd.held, crowd.alive


def stays_open(port: Site, count: int, probes: int) -> None:
    """R10 against RSO."""
    pid = receive_process(port)
    for _ in range(3):
        store_one(port.dicom)
    before = memory(pid)
    highest = [before]
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.1):
            highest.append(memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    took, held, alive = crowd_out(port.dicom, count, probes)
    watching.set()
    watcher.join()
    growth = max(highest) - before
    sys.stdout.write(
        f"RSO, {count} clients that give nothing: honest p95 {percentile(took, 0.95):.3f} s,"
        f" longest life {max(held):.1f} s, memory +{growth >> 20} MB\n"
    )
    assert percentile(took, 0.95) <= 1.0
    assert alive == 0
    assert max(held) <= 60
    assert growth <= 100 << 20


def test_clients_that_give_nothing_hold_nobody_up(port: Site) -> None:
    """R10, short: 80 silent and dripping clients, an honest one beside them."""
    stays_open(port, 80, 15)


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_500_clients_that_give_nothing_hold_nobody_up(port: Site) -> None:
    """R10: 500 of them."""
    stays_open(port, 500, 100)


@pytest.mark.proof
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["storescp", "Orthanc"])
def test_others_with_500_clients_that_give_nothing(
    name: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    """R10 elsewhere: the same harness finds something that a crowd does hold up, or does not."""
    listen = free_port()
    command = [peer("storescp"), "-od", str(tmp_path), "--fork", str(listen)]
    if name == "Orthanc":
        config = tmp_path / "orthanc.json"
        config.write_text(json.dumps({
            "StorageDirectory": str(tmp_path / "o"), "IndexDirectory": str(tmp_path / "o"),
            "DicomPort": listen, "HttpPort": free_port(), "DicomAet": "RSO",
            "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False,
        }))  # fmt: skip
        command = [peer("Orthanc"), str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(listen))
        took, held, alive = crowd_out(listen, 500, 4)
        fine = [t for t in took if t != float("inf")]
        sys.stdout.write(
            f"{name}, 500 clients that give nothing: {len(fine)} of {len(took)} honest ones"
            f" served, p95 {percentile(took, 0.95):.3f} s; {alive} still held after 65 s,"
            f" longest life of the others {max(held, default=0.0):.1f} s\n"
        )
        assert took
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return store_one(port) < 20
    except (TransportError, AssertionError):
        return False


def many_at_once(port: Site, associations: int, instances: int) -> None:
    """R11."""
    pid = receive_process(port)
    store_one(port.dicom)
    time.sleep(1)
    threads, descriptors = threads_and_descriptors(pid)
    answers: list[int | str] = []
    lock = threading.Lock()
    together = threading.Barrier(associations)

    def send() -> None:
        mine: list[int | str] = []
        try:
            requestor = Requestor(
                "127.0.0.1", port.dicom, called_ae_title="RSO", calling_ae_title="NORTHPACS",
                contexts=[CONTEXT], answer_seconds=120.0, connect_seconds=60.0,
            )  # fmt: skip
            together.wait(120)
            for _ in range(instances):
                uid = generate_uid()
                data = tiny_dataset(uid)
                mine.append(requestor.store(CONTEXT[0], uid, CONTEXT[1], [data]).status)
            requestor.release()
        except Exception as exc:
            together.abort()
            mine.append(repr(exc))
        with lock:
            answers.extend(mine)

    began = time.monotonic()
    senders = [threading.Thread(target=send) for _ in range(associations)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    took = time.monotonic() - began
    assert [a for a in answers if a != 0] == []
    assert len(answers) == associations * instances

    def base() -> bool:
        now = threads_and_descriptors(pid)
        return now[0] <= threads and now[1] <= descriptors

    wait_for(base, 10)
    wait_for(lambda: kept(port) == associations * instances + 1, 300)
    sys.stdout.write(
        f"{associations} associations at once with {instances} instances each: 0 errors,"
        f" {took:.1f} s, {len(answers) / took:.0f} instances a second; {threads} threads and"
        f" {descriptors} descriptors before and after\n"
    )


def kept(site: Site) -> int:
    """Instances in the ledger."""
    uri = f"file:{site.config.parent / 'rso.sqlite'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM instance").fetchone()[0])


@pytest.mark.parametrize("port", ["receive,work"], indirect=True)
def test_associations_at_once_all_succeed(port: Site) -> None:
    """R11, short: 40 associations of 10 instances."""
    many_at_once(port, 40, 10)


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("port", ["receive,work"], indirect=True)
def test_500_associations_at_once_all_succeed(port: Site) -> None:
    """R11: 500 associations of 100 instances."""
    many_at_once(port, 500, 100)


PATIENT = """
from rso.dicom.wire import Wire
real = Wire.read_head
def waits(self, seconds, *, whole=False):
    return real(self, 10_000.0)
Wire.read_head = waits
"""
LEAKS = """
import os
from rso.dicom.wire import Wire
real, kept = Wire.close, []
def keeps(self):
    kept.append(os.dup(self.sock.fileno()))
    real(self)
Wire.close = keeps
"""


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_r10_finds_clients_that_are_waited_for(tmp_path: Path) -> None:
    """R10 is able to fail: who says nothing is waited for."""
    with (
        running_with(PATIENT, tmp_path, free_port()) as ours,
        pytest.raises(AssertionError, match="== 0"),
    ):
        stays_open(ours.site, 80, 15)


@pytest.mark.proof
def test_r11_finds_what_is_left_behind(tmp_path: Path) -> None:
    """R11 is able to fail: a descriptor of each association stays."""
    with (
        running_with(LEAKS, tmp_path, free_port()) as ours,
        pytest.raises(AssertionError, match="it did not happen in time"),
    ):
        many_at_once(ours.site, 20, 2)
