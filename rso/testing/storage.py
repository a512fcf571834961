"""RSO, Orthanc and DCMTK's storescp as one kind of thing: what takes instances by C-STORE.

A test of a promise that runs against all of them shows that it can fail, and how others do.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import pydicom
from msgspec import Struct

from rso.core.errors import RsoError
from rso.testing.fixtures import missing
from rso.testing.modality import send_files
from rso.testing.site import Site, free_port, wait_for
from rso.testing.tracing import mutant

__all__ = [
    "Copies",
    "Orthanc",
    "Ours",
    "Storage",
    "Storescp",
    "Verdict",
    "judge",
    "pixels_of",
    "running_with",
    "send_on",
]

Copies = dict[str, list[bytes]]
_CALLING, _CALLED = "NORTHPACS", "RSO"


class Storage(ABC):
    """A C-STORE SCP that keeps what it takes, and can be killed."""

    name: str
    port: int
    calling_ae_title = "NORTHPACS"

    @abstractmethod
    def pid(self) -> int:
        """The process that takes instances; 0 while there is none."""

    @abstractmethod
    def revive(self) -> None:
        """Start again after a kill, where nobody else does it."""

    @abstractmethod
    def copies(self) -> Copies:
        """Pixel Data of everything that is visible, by SOP Instance UID.

        What cannot be read has the UID ``""``.
        """

    @abstractmethod
    def stop(self) -> None:
        """End in order."""

    def kill(self) -> None:
        """Kill -9 the process that takes instances, once there is one."""
        os.kill(wait_for(self.pid), signal.SIGKILL)

    def send(self, files: Sequence[Path], answers: dict[str, int], *, port: int = 0) -> None:
        """Send files over one association; what was answered is in ``answers``.

        Raises:
            RsoError: The association failed or broke.
        """
        send_files(
            files, host="127.0.0.1", port=port or self.port,
            calling_ae_title=self.calling_ae_title,
            called_ae_title=_CALLED, answers=answers,
        )  # fmt: skip


class Ours(Storage):
    """RSO, running in a ``Site`` with the roles receive and work."""

    name = "RSO"

    def __init__(self, site: Site, calling_ae_title: str = "NORTHPACS") -> None:
        self.site = site
        self.port = site.dicom
        self.calling_ae_title = calling_ae_title

    def pid(self) -> int:
        """The receiver."""
        return self.site.pid("receive")

    def revive(self) -> None:
        """The supervisor does it."""

    def copies(self) -> Copies:
        """What is in the archive."""
        archive = self.site.folder / "site" / "data" / "archive"
        return _read(path.read_bytes() for path in archive.rglob("*.dcm"))

    def stop(self) -> None:
        """End it."""
        assert self.site.stop() == 0


class _Program(Storage):
    """A peer's program with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What to run."""

    def start(self) -> None:
        """Run it and wait until it listens."""
        command = self.command()
        program = shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            missing(command[0])
        with (self.folder.parent / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, *command[1:]], stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "TCP_NODELAY": "1"},
            )  # fmt: skip
        wait_for(self._listens, 30)

    def _listens(self) -> bool:
        done = subprocess.run(
            ["echoscu", "-aet", _CALLING, "-aec", _CALLED, "127.0.0.1", str(self.port)],
            check=False, capture_output=True,
        )  # fmt: skip
        return done.returncode == 0

    def pid(self) -> int:
        """The program's."""
        return self.process.pid if self.process and self.process.poll() is None else 0

    def kill(self) -> None:
        """Kill -9, with what it forked."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def revive(self) -> None:
        """Start it again if it is gone."""
        if self.process is not None and self.process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(30)


class Storescp(_Program):
    """DCMTK's storescp, one process an association."""

    name = "storescp"

    def command(self) -> list[str]:
        """All Transfer Syntaxes, a process for each association."""
        return ["storescp", "+xa", "--fork", "-od", str(self.folder), str(self.port)]

    def copies(self) -> Copies:
        """What is in its folder."""
        return _read(path.read_bytes() for path in self.folder.iterdir() if path.is_file())


class Orthanc(_Program):
    """Orthanc as shipped, with its index in SQLite."""

    name = "Orthanc"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._http = free_port()

    def command(self) -> list[str]:
        """Its configuration, and HTTP to look at what it has."""
        config = self.folder / "orthanc.json"
        config.write_text(
            json.dumps(
                {
                    "Name": "gate",
                    "StorageDirectory": str(self.folder / "db"),
                    "IndexDirectory": str(self.folder / "db"),
                    "DicomPort": self.port,
                    "DicomAet": _CALLED,
                    "HttpPort": self._http,
                    "AuthenticationEnabled": False,
                    "DicomModalities": {},
                }
            )
        )
        return ["Orthanc", str(config)]

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def copies(self) -> Copies:
        """What its index names, read by HTTP."""

        def files() -> Iterable[bytes]:
            for key in json.loads(self._get("/instances")):
                try:
                    yield self._get(f"/instances/{key}/file")
                except OSError:
                    yield b""

        return _read(files())


def _read(files: Iterable[bytes]) -> Copies:
    copies: Copies = defaultdict(list)
    for data in files:
        uid, pixels = pixels_of(data)
        copies[uid].append(pixels)
    return copies


def pixels_of(data: bytes) -> tuple[str, bytes]:
    """SOP Instance UID and Pixel Data of a Part 10 file; nothing of one that cannot be read."""
    try:
        dataset = pydicom.dcmread(BytesIO(data))
        return str(dataset.SOPInstanceUID), bytes(dataset.get("PixelData") or b"")
    except Exception:  # pydicom raises in many ways about a torn file
        return "", base64.b16encode(data[:16])


class Verdict(Struct, frozen=True, kw_only=True):
    """What became of what was sent.

    Attributes:
        lost: Acknowledged, and not there whole.
        torn: Copies that are visible and not what was sent.
        twice: SOP Instance UIDs with more than one copy.
        slowest: Seconds of the longest interruption, until an instance was acknowledged again.
    """

    lost: int
    torn: int
    twice: int = 0
    slowest: float = 0.0


def judge(
    copies: Copies, files: Iterable[Path], answers: dict[str, int], *, slowest: float = 0.0
) -> Verdict:
    """Hold what is visible against what was sent and what was acknowledged."""
    sent = dict(pixels_of(path.read_bytes()) for path in files)
    acknowledged = {uid for uid, status in answers.items() if status == 0}
    return Verdict(
        lost=sum(sent[uid] not in copies.get(uid, ()) for uid in acknowledged),
        torn=sum(found != sent[uid] for uid in sent for found in copies.get(uid, ()))
        + len(copies.get("", ())),
        twice=sum(len(copies.get(uid, ())) > 1 for uid in sent),
        slowest=slowest,
    )


def send_on(
    storage: Storage,
    files: Sequence[Path],
    *,
    port: int = 0,
    seconds: float = 60.0,
    between: Callable[[], None] = lambda: None,
    answers: dict[str, int] | None = None,
) -> tuple[dict[str, int], float]:
    """Send files until each is acknowledged, whatever happens in between.

    Args:
        storage: Where to.
        files: What.
        port: Another port than the storage's own, as of a proxy before it.
        seconds: Patience.
        between: Called after each failure.
        answers: Where the answers go as they come.

    Returns:
        The answers, and the longest time from a failure to the next acknowledgement.
    """
    answers = {} if answers is None else answers
    uids = {path: pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
            for path in files}  # fmt: skip
    until = time.monotonic() + seconds
    slowest, failed_at, done = 0.0, 0.0, 0
    while todo := [path for path in files if answers.get(uids[path]) != 0]:
        assert time.monotonic() < until, f"{len(todo)} were never acknowledged by {storage.name}"
        try:
            # One first, so that the end of an interruption is seen when it comes.
            storage.send(todo[:1] if failed_at else todo, answers, port=port)
        except RsoError:
            if not failed_at or sum(s == 0 for s in answers.values()) > done:
                failed_at = time.monotonic()
            done = sum(s == 0 for s in answers.values())
            between()
            time.sleep(0.05)
            continue
        if failed_at and sum(s == 0 for s in answers.values()) > done:
            slowest, failed_at = max(slowest, time.monotonic() - failed_at), 0.0
    return answers, slowest


@contextlib.contextmanager
def running_with(defect: str, folder: Path, port: int, more: str = "") -> Iterator[Ours]:
    """RSO with a defect, its PACS on ``port``."""
    ours = Ours(Site(folder, port))
    if more:
        (folder / "more.toml").write_text(more)
        ours.site.rso("load", str(folder / "more.toml"), "--json")
    ours.site.start("receive,work", environment=mutant(folder / "mutant", defect))
    try:
        yield ours
    finally:
        ours.site.stop()
