"""``rso demo``: both processes, on this machine, with real images, from nothing."""

import contextlib
import ftplib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
from rich.console import Console
from rich.table import Table

from rso.core.errors import RsoError
from rso.core.number import format_number, make_number
from rso.dicom.stamp import stamp_file
from rso.testing.modality import send_files
from rso.testing.pacs import Pacs

__all__ = ["run_demo"]

_WAIT_SECONDS = 90.0
_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
_SITE = """
[[facility]]
code = "NORTH"
name = "North Clinic"
issuer_of_patient_id = "NORTH"
sources = [
  {{ channel = "dicom_scp", identity = "NORTHCT", kind = "technician", networks = ["127.0.0.0/8"] }},
  {{ channel = "dicom_scp", identity = "NORTHPACS", kind = "integration", networks = ["127.0.0.0/8"] }},
  {{ channel = "ftp", identity = "north", kind = "technician", password = "{password}" }},
]
radiologists = [ {{ code = "READER" }} ]

[[radiologist]]
code = "READER"
name = "Night Reader"
destinations = [
  {{ code = "READER-PACS", sender = "dicom_scu",
    options = {{ ae_title = "PACS", host = "127.0.0.1", port = {pacs}, associations = 2 }} }},
]

[[user]]
email = "tech@example.org"
role = "technician"
facilities = ["NORTH"]
password = "{password}"
"""  # noqa: E501


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _series(*names: str) -> list[Path]:
    root = _FILES / "dicomdirtests"
    return sorted(p for name in names for p in (root / name).rglob("*") if p.is_file())


def _by_study(files: Sequence[Path]) -> list[list[Path]]:
    """The files of each Study, the largest Study first."""
    studies: dict[str, list[Path]] = {}
    for file in files:
        uid = str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID)
        studies.setdefault(uid, []).append(file)
    return sorted(studies.values(), key=len, reverse=True)


class _Demo:
    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console = folder, console
        self.config = folder / "site" / "rso.toml"
        self.pacs = Pacs()
        self.dicom, self.web, self.ftp = _free_port(), _free_port(), _free_port()
        self.password = ""
        self.rows: list[tuple[str, str, int, set[str]]] = []
        self.sent: set[str] = set()

    def rso(self, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "rso", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "RSO_CONFIG": str(self.config)},
        )
        if done.returncode:
            raise RsoError(done.stderr.strip() or f"rso {arguments[0]} failed")
        return json.loads(done.stdout) if done.stdout.strip() else None

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        log = (self.folder / "rso.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "rso", "serve", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("RSO ready"):
                said = Path(log.name).read_text("utf-8", "replace")[-3000:]
                raise RsoError(f"RSO did not start:\n{said}")
            drain = threading.Thread(target=process.stdout.read, daemon=True)
            drain.start()
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            log.close()

    def stamped(self, files: Sequence[Path], number: str, name: str) -> list[Path]:
        out = self.folder / name
        out.mkdir()
        made = []
        for i, file in enumerate(files):
            stamp_file(file, out / f"{i}.dcm", number)
            made.append(out / f"{i}.dcm")
        return made

    def send(self, step: str, ae_title: str, files: Sequence[Path], *, held: bool = False) -> None:
        self.console.print(f"  {step} … ", end="")
        answers = send_files(
            files, host="127.0.0.1", port=self.dicom, calling_ae_title=ae_title,
            called_ae_title="RSO",
        )  # fmt: skip
        kept = [uid for uid, status in answers.items() if status == 0]
        self.note(step, ae_title, files, len(kept), held=held)

    def note(
        self, step: str, source: str, files: Sequence[Path], kept: int, *, held: bool = False
    ) -> None:
        heads = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        if not held:
            self.sent.update(str(head.SOPInstanceUID) for head in heads)
        self.rows.append((step, source, kept, {str(head.StudyInstanceUID) for head in heads}))
        self.console.print(f"{kept} of {len(files)} acknowledged")
        if kept != len(files):
            raise RsoError(f"{step}: some instances were refused")

    def upload_ftp(self, step: str, files: Sequence[Path]) -> None:
        self.console.print(f"  {step} … ", end="")
        # The demo's certificate is signed by RSO itself.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        kept = 0
        with ftplib.FTP_TLS(context=context, timeout=30) as ftp:  # noqa: S321
            ftp.connect("127.0.0.1", self.ftp)
            ftp.login("north", self.password)
            ftp.prot_p()
            for file in files:
                with file.open("rb") as stream:
                    kept += ftp.storbinary(f"STOR {file.name}", stream).startswith("226")
        self.note(step, "ftp: north", files, kept)

    def upload_http(self, step: str, number: str, files: Sequence[Path]) -> None:
        self.console.print(f"  {step} … ", end="")
        token = self.rso("token", "create", "--user", "tech@example.org")["token"]
        report = self.rso(
            "send", number, *map(str, files), "--token", token,
            "--url", f"http://127.0.0.1:{self.web}",
        )  # fmt: skip
        self.note(step, "http: tech@example.org", files, report["stored"])

    def settle(self, exams: int, holds: int) -> bool:
        """Wait until so many exams are delivered and so many holds are open."""
        until = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < until:
            found = self.rso("exam", "list")["exams"]
            done = sum(e["status"] == "delivered" for e in found)
            held = len(self.rso("hold", "list")["holds"])
            if done == exams and held == holds and self.sent <= self.pacs.by_uid().keys():
                return True
            time.sleep(0.5)
        return False

    def play(self) -> bool:
        pydicom_files = [_FILES / "JPEG2000.dcm", _FILES / "MR_small_RLE.dcm"]
        ct = _series("77654033/CT2") or _series("98892003/MR1")
        dataset = pydicom.dcmread(ct[0], stop_before_pixels=True)
        created = self.rso(
            "exam", "create", "--facility", "NORTH", "--modality", "CT", "--priority", "stat",
            "--patient-name", str(dataset.PatientName), "--patient-id", "N-1001",
        )["exam_number"]  # fmt: skip
        self.console.print(f"  exam requested: [bold]{format_number(created)}[/bold] (STAT)")
        half, quarter = len(ct) // 2, len(ct) // 4
        stamped = self.stamped(ct[: half + quarter], created, "stamped")
        self.send("technician sends half of the CT", "NORTHCT", stamped[:half])
        self.upload_ftp("a part of it goes by FTPS", stamped[half:])
        self.upload_http("the rest by HTTP, unstamped", created, ct[half + quarter :])
        first, second, *_ = _by_study(_series("98892003/MR1", "98892003/MR2", "98892003/MR700"))
        self.send("storage sends an unknown patient", "NORTHPACS", first[:1])
        self.send("the same Study goes on", "NORTHPACS", first[1:])
        known = pydicom.dcmread(second[0], stop_before_pixels=True)
        self.rso(
            "exam", "create", "--facility", "NORTH", "--modality", "MR",
            "--patient-name", str(known.PatientName), "--patient-id", str(known.PatientID),
        )  # fmt: skip
        self.console.print("  an exam is requested for the same patient")
        self.send("the same patient, another Study", "NORTHPACS", second)
        self.send("compressed single images", "NORTHPACS", pydicom_files)
        wrong = self.stamped([_FILES / "CT_small.dcm"], make_number(), "wrong")
        self.send("a number that no exam has", "NORTHCT", wrong, held=True)
        return self.settle(exams=self._expected_exams(), holds=1)

    def _expected_exams(self) -> int:
        deadline = time.monotonic() + 10
        count = -1
        while time.monotonic() < deadline:
            now = len(self.rso("exam", "list")["exams"])
            if now == count:
                return now
            count = now
            time.sleep(1)
        return count

    def report(self, *, delivered: bool) -> None:
        table = Table(title="What happened", header_style="bold")
        for column in ("step", "from", "instances", "exam, and the row of the matching table"):
            table.add_column(column)
        exams = Table(title="Exams", header_style="bold")
        for column in ("exam", "origin", "status", "at the PACS"):
            exams.add_column(column)
        joined: dict[str, str] = {}
        for summary in self.rso("exam", "list")["exams"]:
            view = self.rso("exam", "show", summary["exam_number"])
            shown = format_number(view["exam_number"])
            ways = ", ".join(f"{d['acknowledged']} of {d['total']}" for d in view["deliveries"])
            exams.add_row(shown, view["origin"], view["status"], ways)
            for study in view["studies"]:
                joined[study["study_instance_uid"]] = f"{shown} (row {study['row']})"
        for step, ae_title, count, studies in self.rows:
            found = sorted({joined.get(uid, "held for a person") for uid in studies})
            table.add_row(step, ae_title, str(count), "\n".join(found))
        self.console.print(table)
        self.console.print(exams)
        arrived = len(self.sent & self.pacs.by_uid().keys())
        word = "[green]delivered[/green]" if delivered else "[red]NOT delivered in time[/red]"
        self.console.print(f"{arrived} of {len(self.sent)} instances {word}, 1 held for a person")


def run_demo(*, stay: bool) -> int:
    """Play the story; returns 0 only if n of n arrived. ``stay`` keeps RSO up until Ctrl-C."""
    console = Console()
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupted)
    with tempfile.TemporaryDirectory(prefix="rso-demo-") as name:
        demo = _Demo(Path(name), console)
        demo.pacs.start()
        try:
            console.print("[bold]RSO demo[/bold]: a facility, every way in, one radiologist's PACS")
            admin = demo.rso(
                "init", str(demo.config.parent),
                "--set", f"plugins.dicom_scp.port={demo.dicom}",
                "--set", "plugins.dicom_scp.host=127.0.0.1",
                "--set", f"plugins.ftp.port={demo.ftp}", "--set", "plugins.ftp.host=127.0.0.1",
                "--set", f"web.port={demo.web}", "--set", "intake.settle_seconds=3",
            )["admin"]  # fmt: skip
            demo.password = admin["password"]
            site = Path(name) / "site.toml"
            site.write_text(_SITE.format(pacs=demo.pacs.port, password=admin["password"]))
            demo.rso("load", str(site))
            with demo.served():
                delivered = demo.play()
                demo.report(delivered=delivered)
                if stay:
                    _stay(console, demo, admin)
        except RsoError as exc:
            console.print(f"[red]{exc}[/red]")
            return 1
        except KeyboardInterrupt:
            return 0 if stay else 130
        finally:
            demo.pacs.stop()
    return 0 if delivered else 1


def _interrupted(*_: object) -> None:
    """A closed terminal or a stopped job ends the demo as Ctrl-C does, RSO and data with it."""
    raise KeyboardInterrupt


def _stay(console: Console, demo: _Demo, admin: dict[str, str]) -> None:
    console.print(
        f"\nOpen [bold]http://127.0.0.1:{demo.web}[/bold]\n"
        f"  administrator  {admin['email']}\n  technician     tech@example.org\n"
        f"  password       {admin['password']}  (both)\n\n"
        f"Send your own:  storescu -aet NORTHPACS -aec RSO 127.0.0.1 {demo.dicom} FILE…\n"
        f"or by FTPS, account north, same password:  127.0.0.1:{demo.ftp}\n"
        "Ctrl-C ends the demo and removes its data."
    )
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
