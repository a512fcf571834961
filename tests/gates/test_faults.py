"""R3, R4 and R5: the disk is full or fails, the database is locked. Only what is durable is kept.

The faults are made by a small volume and by strace, which lets system calls of the running
process fail; the oracle is what the sender was answered, against what arrives.
"""

import json
import os
import sqlite3
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from rso.core.errors import RsoError
from rso.testing.modality import stow
from rso.testing.pacs import Pacs
from rso.testing.site import wait_for
from rso.testing.storage import Orthanc, Ours, Storage, Storescp, judge, send_on
from rso.testing.study import make_study, missing
from rso.testing.tracing import Trace

pytestmark = pytest.mark.peers

# The call that fails, its how-manieth time and from then on, and the rows of the instance sent.
RECEIVE = [("pwritev2:1", 0), ("fdatasync:1", 0), ("write:2", 2600), ("fsync:1", 2600),
           ("rename:1", 2600), ("fsync:2", 2600), ("openat:1", 2600), ("statfs:1", 0)]  # fmt: skip
SHORT = ("pwritev2:1", "fdatasync:1", "rename:1", "fsync:2")


@pytest.mark.parametrize(
    "faults",
    [[f for f in RECEIVE if f[0] in SHORT], pytest.param(RECEIVE, marks=pytest.mark.proof)],
    ids=["some", "all"],
)
def test_a_failing_volume_is_never_called_success(
    ours: Ours, tmp_path: Path, samples: Path, reader: Pacs, faults: list[tuple[str, int]]
) -> None:
    """EIO from a write, a sync or a rename: a failure status, and after a restart it goes on."""
    files: list[Path] = []
    answers: dict[str, int] = {}
    for number, (point, side) in enumerate(faults):
        made = make_study(samples / "CT_small.dcm", tmp_path / f"s{number}", 3, side=side)
        call, _, when = point.partition(":")
        pid = wait_for(ours.pid)
        refused: dict[str, int] = {}
        with Trace(pid, tmp_path / "trace", [call], inject=f"{call}:error=EIO:when={when}+"):
            time.sleep(0.2)  # the room on the volume is asked for ten times a second
            try:
                ours.send(made[:1], refused)
            except RsoError:
                pass
            else:
                assert set(refused.values()) <= {0x0110, 0xA700}, (point, refused)
        assert 0 not in refused.values(), point
        ours.kill()
        got, _ = send_on(ours, made)
        files += made
        answers |= got
    uids = set(answers)
    wait_for(lambda: uids <= ours.copies().keys(), 40)
    verdict = judge(ours.copies(), files, answers)
    print(f"RSO: {len(faults)} faults, {verdict}")
    assert (verdict.lost, verdict.torn, verdict.twice) == (0, 0, 0)
    wait_for(lambda: missing(reader, files) == 0, 60)


def test_a_failed_sync_is_said_and_not_trusted_again(
    ours: Ours, tmp_path: Path, samples: Path
) -> None:
    """After one EIO from fdatasync the process refuses everything until a restart, and says so."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 2)
    answers: dict[str, int] = {}
    with Trace(wait_for(ours.pid), tmp_path / "trace", ["fdatasync"],
               inject="fdatasync:error=EIO:when=1"):  # fmt: skip
        ours.send(files[:1], answers)
    ours.send(files[1:], answers)
    assert set(answers.values()) == {0x0110}
    assert "volume failed" in (ours.site.folder / "rso.log").read_text()
    reason = "spool receive-0: sync failed: Input/output error"
    health = httpx.get(f"http://127.0.0.1:{ours.site.web}/health")
    assert (health.status_code, health.json()["reasons"]) == (503, [reason])
    check = ours.site.run("check", "--json")
    (found,) = [c for c in json.loads(check.stdout)["checks"] if c["name"].startswith("fault of")]
    assert check.returncode == 1
    assert reason in found["detail"]
    assert str(ours.site.config.parent / "data") in found["detail"]
    ours.kill()
    wait_for(lambda: httpx.get(health.url).status_code == 200)
    again, _ = send_on(ours, files)
    assert set(again.values()) == {0}


WORK = ["openat", "write", "rename"]


@pytest.mark.parametrize("calls", [["rename"], pytest.param(WORK, marks=pytest.mark.proof)])
def test_intake_waits_while_the_archive_fails(
    ours: Ours, tmp_path: Path, samples: Path, reader: Pacs, calls: list[str]
) -> None:
    """EIO in the archive: what was acknowledged stays in the spool and is taken in afterwards."""
    for number, call in enumerate(calls):
        files = make_study(samples / "CT_small.dcm", tmp_path / f"s{number}", 5)
        pid = wait_for(lambda: ours.site.pid("work"))
        answers: dict[str, int] = {}
        with Trace(pid, tmp_path / "trace", [call], inject=f"{call}:error=EIO:when=1+"):
            ours.send(files, answers)
            time.sleep(1)
        assert set(answers.values()) == {0}
        wait_for(lambda files=files: missing(reader, files) == 0, 60)
        verdict = judge(ours.copies(), files, answers)
        assert (verdict.lost, verdict.torn, verdict.twice) == (0, 0, 0)


def test_the_web_refuses_while_its_spool_fails(ours: Ours, tmp_path: Path, samples: Path) -> None:
    """STOW-RS says no while nothing can be synced, and yes after a restart."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 1)
    account = ("north-gateway", "north's password")
    pid = wait_for(lambda: ours.site.pid("web"))
    with Trace(pid, tmp_path / "trace", ["fdatasync"], inject="fdatasync:error=EIO:when=1+"):
        assert not stow(files, port=ours.site.web, account=account)
    ours.site.kill("web")
    wait_for(lambda: stow(files, port=ours.site.web, account=account), 40)


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.proof)])
def test_the_database_is_locked(
    ours: Ours, tmp_path: Path, samples: Path, reader: Pacs, seconds: int
) -> None:
    """Another program locks SQLite: receivers go on, and all is taken in when it lets go."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 30)
    database = sqlite3.connect(ours.site.config.with_name("rso.sqlite"), timeout=30)
    answers: dict[str, int] = {}
    try:
        database.isolation_level = None
        database.execute("BEGIN IMMEDIATE")
        until = time.monotonic() + seconds
        for number, file in enumerate(files):
            ours.send([file], answers)
            if number % 10 == 0:
                time.sleep(seconds / 6)
        time.sleep(max(until - time.monotonic(), 0))
        assert missing(reader, files) == len(files)
        database.execute("ROLLBACK")
    finally:
        database.close()
    assert set(answers.values()) == {0}
    wait_for(lambda: missing(reader, files) == 0, 60)
    verdict = judge(ours.copies(), files, answers)
    assert (verdict.lost, verdict.torn, verdict.twice) == (0, 0, 0)


@pytest.mark.proof
@pytest.mark.parametrize("kind", [Orthanc, Storescp], ids=["Orthanc", "storescp"])
def test_a_full_disk_of_others(
    kind: type[Orthanc | Storescp], tmp_path: Path, samples: Path
) -> None:
    """What they answer when 30 MB are full, and what stays visible: measured."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", disk], check=True)
    storage: Storage = kind(disk / "other")
    try:
        storage.start()  # type: ignore[attr-defined]
        files = make_study(samples / "CT_small.dcm", tmp_path / "study", 60, side=600)
        answers: dict[str, int] = {}
        broken = ""
        for file in files:
            try:
                storage.send([file], answers)
            except RsoError as exc:
                broken = str(exc)
        statuses = sorted({f"{status:04X}" for status in answers.values()})
        verdict = judge(storage.copies(), files, answers)
        stored = sum(p.is_file() for p in disk.rglob("*") if p.stat().st_size > 500_000)
        print(f"{storage.name}: full disk, answers {statuses} {broken}, {verdict},"
              f" {stored} whole files for {sum(s == 0 for s in answers.values())} acknowledged")  # fmt: skip
    finally:
        storage.stop()
        subprocess.run(["umount", "-l", disk], check=True)
