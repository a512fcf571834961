"""RSO as a deployer runs it, in a folder of its own: for tests from outside."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from rso.testing.commands import Commands

__all__ = ["SITE", "Site", "facility", "free_port", "wait_for"]

SITE = """
[[facility]]
code = "NORTH"
name = "North Clinic"
issuer_of_patient_id = "NORTH"
sources = [
  {{ channel = "dicom_scp", identity = "NORTHCT", kind = "technician", networks = ["127.0.0.0/8"] }},
  {{ channel = "dicom_scp", identity = "NORTHPACS", kind = "integration", networks = ["127.0.0.1/32"] }},
  {{ channel = "ftp", identity = "north", kind = "technician", password = "{north}" }},
  {{ channel = "http_upload", identity = "north-gateway", kind = "integration", password = "{north}" }},
]
radiologists = [ {{ code = "READER" }} ]

[[facility]]
code = "SOUTH"
sources = [
  {{ channel = "dicom_scp", identity = "NORTHPACS", kind = "integration", networks = ["127.0.0.2/32"] }},
  {{ channel = "ftp", identity = "south", kind = "technician", password = "south's password" }},
]
radiologists = [ {{ code = "OTHER" }} ]

[[radiologist]]
code = "READER"
destinations = [
  {{ code = "READER-PACS", sender = "dicom_scu", egress = "passthrough",
    options = {{ ae_title = "PACS", host = "127.0.0.1", port = {pacs}, associations = 2 }} }},
]

[[radiologist]]
code = "OTHER"
destinations = [
  {{ code = "OTHER-PACS", sender = "dicom_scu",
    options = {{ ae_title = "PACS", host = "127.0.0.1", port = {pacs} }} }},
]

[[user]]
email = "tech@example.org"
role = "technician"
facilities = ["NORTH"]
password = "{good}"
contacts = [
  {{ channel = "sms", address = "+12025550100" }},
  {{ channel = "email", address = "tech@example.org" }},
  {{ channel = "fax", address = "+12025550101" }},
]

[[user]]
email = "first@example.org"
role = "coordinator"
password = "{good}"

[[user]]
email = "second@example.org"
role = "coordinator"
password = "{good}"

[[user]]
email = "customer@example.org"
role = "customer"
facilities = ["NORTH"]
password = "{good}"

[[user]]
email = "south@example.org"
role = "customer"
facilities = ["SOUTH"]
password = "another good password"
"""


# Hashes that cost nothing to check. The password of SOUTH's people is hashed as a deployer's.
_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_HASHES = {"good": _CHEAP.hash("a good password"), "north": _CHEAP.hash("north's password")}
_COMMANDS = Commands()
_PORTS = range(20000, 32000)
_CLAIMS: list[int] = []  # descriptors; the system closes them with the process


def free_port() -> int:
    """A port nobody listens on, and that no other run of tests takes while this process lives.

    It is below those that the system gives to outgoing connections, so none of them takes it
    before a server does.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        # A name in Linux's abstract namespace belongs to one process, and goes with it.
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0rso-testing-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _CLAIMS.append(claim.detach())
        return port
    raise OSError("no port is free")


class Site:
    """A set-up RSO: its folder, its command line, its running processes."""

    def __init__(self, folder: Path, pacs_port: int, *settings: str) -> None:
        self.folder = folder
        self.dicom, self.web, self.ftp = free_port(), free_port(), free_port()
        self.config = folder / "site" / "rso.toml"
        self.process: subprocess.Popen[str] | None = None
        self.start_seconds = 0.0  # how long the last start took
        made = self.rso(
            "init", str(folder / "site"), "--json",
            "--set", f"plugins.dicom_scp.port={self.dicom}",
            "--set", "plugins.dicom_scp.host=127.0.0.1",
            "--set", f"web.port={self.web}",
            "--set", f"plugins.ftp.port={self.ftp}",
            "--set", "plugins.ftp.host=127.0.0.1",
            "--set", "intake.settle_seconds=1.5",
            *[word for change in settings for word in ("--set", change)],
        )  # fmt: skip
        assert made["config"] == str(self.config)
        self.admin = made["admin"]
        site = folder / "site.toml"
        site.write_text(SITE.format(pacs=pacs_port, **_HASHES))
        self.rso("load", str(site), "--json")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return _COMMANDS.run(arguments, {**os.environ, "RSO_CONFIG": str(self.config)})

    def rso(self, *arguments: str) -> Any:
        """Run a command that must work; its JSON."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout

    def start(
        self, roles: str = "receive,web,work", *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Serve these roles, and wait until they listen; ``environment`` is added to ours."""
        self.log = (self.folder / "rso.log").open("a")
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rso", "serve", "--role", roles, "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("RSO ready"), (self.folder / "rso.log").read_text()[-3000:]
        self.start_seconds = time.monotonic() - began
        self.reader = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.reader.start()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        self._let_go(process)
        return code

    def die(self) -> None:
        """Every process is killed at once, as when the machine fails."""
        process, self.process = self.process, None
        assert process is not None
        process.kill()  # first, so that it starts nothing again
        for role in ("receive", "web", "work"):
            while pid := self.pid(role):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait(60)
        self._let_go(process)

    def _let_go(self, process: subprocess.Popen[str]) -> None:
        self.reader.join()
        assert process.stdout is not None
        process.stdout.close()
        self.log.close()

    def pid(self, role: str) -> int:
        """The process of a role; 0 while there is none."""
        found = subprocess.run(
            ["pgrep", "-f", f"rso.roles {role} 0 {self.config}$"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        return int(found.stdout.split()[0]) if found.stdout else 0

    def kill(self, role: str) -> None:
        """Kill -9 the process of a role, once there is one; the supervisor starts it again."""
        # To signal process 0 would be to signal everybody here.
        os.kill(wait_for(lambda: self.pid(role)), signal.SIGKILL)

    def exams(self) -> list[dict[str, Any]]:
        """Every exam, shown."""
        found = self.rso("exam", "list", "--json")["exams"]
        return [self.rso("exam", "show", e["exam_number"], "--json") for e in found]

    def holds(self) -> list[dict[str, Any]]:
        """Every open hold."""
        holds: list[dict[str, Any]] = self.rso("hold", "list", "--json")["holds"]
        return holds


def facility(code: str, destinations: dict[str, tuple[int, str]]) -> str:
    """A facility with an integration source, and a radiologist for each destination.

    Args:
        code: The facility; its source is called ``{code}PACS``.
        destinations: Port and egress mode (or an empty one) by code.
    """
    readers = ", ".join(f'{{ code = "R-{name}" }}' for name in destinations)
    text = f"""
[[facility]]
code = "{code}"
issuer_of_patient_id = "{code}"
sources = [ {{ channel = "dicom_scp", identity = "{code}PACS", kind = "integration",
               networks = ["127.0.0.0/8"] }} ]
radiologists = [ {readers} ]
"""
    for name, (port, egress) in destinations.items():
        mode = f'egress = "{egress}",' if egress else ""
        text += f"""
[[radiologist]]
code = "R-{name}"
destinations = [ {{ code = "{name}", sender = "dicom_scu", {mode} options = {{
  ae_title = "PACS", host = "127.0.0.1", port = {port}, answer_seconds = 8 }} }} ]
"""
    return text


def wait_for(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    """What ``condition`` returns once it is true."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
    return found
