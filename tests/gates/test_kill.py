"""R1: kill -9 at any moment. Acknowledged is kept, torn is not seen, and it goes on by itself.

The oracle is the sender's log of acknowledgements against what is visible afterwards: files of
the archive, and datasets at the PACS.
"""

import contextlib
import random
import threading
import time
from pathlib import Path

import pytest

from rso.testing.modality import stow
from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for
from rso.testing.storage import Ours, Storage, Verdict, judge, pixels_of, send_on
from rso.testing.study import make_study, missing
from rso.testing.tracing import Trace, mutant

pytestmark = pytest.mark.peers

GATEWAY = ("north-gateway", "north's password")

# Where the receiver may die on the way from the first byte to the acknowledgement: the call, and
# its how-manieth time in the thread of the association.
SMALL = ["recvfrom:3", "statfs:1", "pwritev2:1", "pwritev2:3", "fcntl:2", "fdatasync:1",
         "fdatasync:4", "close:2", "sendmsg:1", "sendmsg:2", "sendmsg:4"]  # fmt: skip
LARGE = ["openat:1", "write:1", "write:3", "fsync:1", "close:1", "rename:1", "fsync:2",
         "pwritev2:2", "fdatasync:1", "sendmsg:2"]  # fmt: skip
# And intake, in whichever of its threads: the archive's files, its sync, the ledger, the release.
WORK = ["openat:1", "write:1", "rename:1", "rename:3", "syncfs:1", "pwrite64:2", "fdatasync:1",
        "fsync:1"]  # fmt: skip


def patience(site: Site) -> float:
    """Ten seconds; where the machine is so busy that a start takes long, four starts."""
    return max(10.0, 4 * site.start_seconds)


def strike(
    storage: Storage, files: list[Path], point: str, log: Path, pid: int
) -> tuple[dict[str, int], float, bool]:
    """Send while the process is killed at a point; answers, the interruption, and whether it was.

    A point is a system call and the how-manieth time it happens in one thread.
    """
    call, _, when = point.partition(":")
    with Trace(pid, log, [call], inject=f"{call}:signal=KILL:when={when}"):
        answers, slowest = send_on(storage, files, between=storage.revive)
        for _ in range(200):  # intake goes on after the last answer
            if not Path(f"/proc/{pid}").exists():
                return answers, slowest, True
            time.sleep(0.05)
    return answers, slowest, False


def settled(ours: Ours, files: list[Path], answers: dict[str, int], slowest: float) -> Verdict:
    """The verdict once intake has had its time."""
    uids = {uid for uid, status in answers.items() if status == 0}
    with contextlib.suppress(AssertionError):
        wait_for(lambda: uids <= ours.copies().keys(), 30)
    return judge(ours.copies(), files, answers, slowest=slowest)


def rounds(
    ours: Ours,
    folder: Path,
    samples: Path,
    reader: Pacs,
    points: list[tuple[str, str, int, int]],
) -> None:
    """Strike at each point: role, point, how many instances, and their rows and columns."""
    files: list[Path] = []
    answers: dict[str, int] = {}
    slowest = 0.0
    for number, (role, point, count, side) in enumerate(points):
        made = make_study(samples / "CT_small.dcm", folder / f"s{number}", count, side=side)
        pid = wait_for(lambda role=role: ours.site.pid(role))
        got, down, hit = strike(ours, made, point, folder / "trace", pid)
        assert hit, f"{role} never came to {point}"
        if role == "work":  # the next one shall find it at work, not in its beginnings
            wait_for(lambda got=got: got.keys() <= ours.copies().keys(), 60)
        files += made
        answers |= got
        slowest = max(slowest, down)
    verdict = settled(ours, files, answers, slowest)
    print(f"RSO: {len(files)} instances, {len(points)} kills, {verdict}")
    assert (verdict.lost, verdict.torn, verdict.twice) == (0, 0, 0)
    assert verdict.slowest <= patience(ours.site)
    wait_for(lambda: missing(reader, files) == 0, 90)


def test_killed_at_system_calls(ours: Ours, tmp_path: Path, samples: Path, reader: Pacs) -> None:
    """A few points of the way, with instances that go into the log and a file of their own."""
    rounds(ours, tmp_path, samples, reader, [
        ("receive", "pwritev2:3", 6, 0), ("receive", "fdatasync:2", 6, 0),
        ("receive", "sendmsg:3", 6, 0), ("receive", "rename:1", 1, 2600),
        ("work", "syncfs:1", 6, 0),
    ])  # fmt: skip


@pytest.mark.proof
def test_killed_at_each_system_call(
    ours: Ours, tmp_path: Path, samples: Path, reader: Pacs
) -> None:
    """Every call of the way from the wire to the archive, 500 instances."""
    small = [("receive", point, 25, 0) for point in SMALL]
    large = [("receive", point, 2, 2600) for point in LARGE]
    work = [("work", point, 25, 0) for point in WORK] + [("work", "rename:1", 1, 2600)]
    rounds(ours, tmp_path, samples, reader, small + large + work)


def at_random(
    storage: Storage, folder: Path, samples: Path, count: int, kills: int
) -> tuple[list[Path], dict[str, int], float]:
    """Send while the process that takes instances is killed at random moments."""
    files = make_study(samples / "CT_small.dcm", folder / "study", count)
    over = threading.Event()
    chance = random.Random(count)

    answers: dict[str, int] = {}

    def killer() -> None:
        for _ in range(kills):
            before = len(answers)
            while len(answers) == before:  # it has to be going again first
                if over.wait(0.01):
                    return
            if over.wait(chance.uniform(0.0, 0.15)):
                return
            if storage.pid():
                with contextlib.suppress(ProcessLookupError):
                    storage.kill()

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        _, slowest = send_on(storage, files, seconds=240, between=storage.revive, answers=answers)
    finally:
        over.set()
        thread.join()
    return files, answers, slowest


@pytest.mark.proof
def test_killed_at_random(ours: Ours, tmp_path: Path, samples: Path, reader: Pacs) -> None:
    """The receiver and intake by turns at no chosen moment, 500 instances."""
    files, answers, slowest = at_random(ours, tmp_path, samples, 500, 12)
    verdict = settled(ours, files, answers, slowest)
    print(f"RSO: {len(files)} instances, random kills, {verdict}")
    assert (verdict.lost, verdict.torn, verdict.twice) == (0, 0, 0)
    assert verdict.slowest <= patience(ours.site)
    wait_for(lambda: missing(reader, files) == 0, 120)


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.proof)])
def test_the_web_is_killed_during_uploads(
    ours: Ours, tmp_path: Path, samples: Path, reader: Pacs, count: int
) -> None:
    """What STOW-RS acknowledged is kept, and uploads go on within ten seconds."""
    site = ours.site
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", count)
    answers: dict[str, int] = {}
    slowest = 0.0
    for number, file in enumerate(files):
        if number % (count // 2) == 1:
            pid = wait_for(lambda: site.pid("web"))
            when = 1 + number % 3
            with Trace(pid, tmp_path / "trace", ["fdatasync"],
                       inject=f"fdatasync:signal=KILL:when={when}"):  # fmt: skip
                if stow([file], port=site.web, account=GATEWAY):
                    site.kill("web")
        began = time.monotonic()
        wait_for(lambda file=file: stow([file], port=site.web, account=GATEWAY), 40)
        slowest = max(slowest, time.monotonic() - began)
        answers[pixels_of(file.read_bytes())[0]] = 0
    verdict = settled(ours, files, answers, slowest)
    print(f"RSO by HTTP: {count} instances, {verdict}")
    assert (verdict.lost, verdict.torn, verdict.twice) == (0, 0, 0)
    assert verdict.slowest <= patience(site)
    wait_for(lambda: missing(reader, files) == 0, 60)


EARLY = """
import threading
from rso.core.transport import Receipt
from rso.dicom.header import scan_header
from rso.engine.spool import LogBatch
kept = LogBatch.append
def early(self, dataset, **said):
    said.pop("ahead", None)
    whole = b"".join(bytes(part) for part in dataset)
    threading.Timer(0.3, kept, (self, [whole]), said).start()
    header = scan_header(whole, said["transfer_syntax_uid"])
    return Receipt(record_id="", header=header, size=len(whole))
LogBatch.append = early
"""
DROPPED = """
from rso.ledger import Ledger
real = Ledger.insert_rows
async def drops(self, table, rows, **more):
    rows = rows[1:] if table.__name__ == "Instance" else rows
    return await real(self, table, rows, **more)
Ledger.insert_rows = drops
"""


@pytest.mark.proof
def test_the_gate_can_fail(tmp_path: Path, samples: Path, pacs: Pacs) -> None:
    """An acknowledgement before the write, and a row that is not written, are both found."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 8)
    ours = Ours(Site(tmp_path, pacs.port))
    ours.site.start("receive,work", environment=mutant(tmp_path / "mutant", EARLY + DROPPED))
    try:
        early: dict[str, int] = {}
        ours.send(files[:4], early)
        ours.kill()
        answers, _ = send_on(ours, files[4:])
        time.sleep(3)
        assert judge(ours.copies(), files, early).lost > 0
        assert judge(ours.copies(), files, answers).lost == 0
        assert missing(pacs, files[4:]) > 0
    finally:
        ours.site.stop()


@pytest.mark.proof
def test_others_are_killed(other: Storage, tmp_path: Path, samples: Path) -> None:
    """The same kills at other storages: measured, and nothing promised for them."""
    files, answers, slowest = at_random(other, tmp_path, samples, 500, 12)
    points = {"Orthanc": ("pwrite64:3", "fdatasync:1", "write:2", "openat:1"),
              "storescp": ("write:2", "write:4", "openat:1", "close:1")}[other.name]  # fmt: skip
    for number, point in enumerate(points):
        made = make_study(samples / "CT_small.dcm", tmp_path / f"s{number}", 5)
        call, _, when = point.partition(":")
        got: dict[str, int] = {}
        with (
            Trace(other.pid(), tmp_path / "trace", [call],
                  inject=f"{call}:signal=KILL:when={when}"),
            contextlib.suppress(Exception),
        ):  # fmt: skip
            other.send(made, got)
        other.kill()
        other.revive()
        files += made
        answers |= got
    verdict = judge(other.copies(), files, answers, slowest=slowest)
    print(f"{other.name}: {len(files)} instances, {verdict}")
