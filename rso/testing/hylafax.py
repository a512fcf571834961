"""A real HylaFAX for tests: its queue (faxq) and its front (hfaxd), without any modem."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from rso.testing.fixtures import missing
from rso.testing.site import free_port

__all__ = ["HylafaxServer"]

_SPOOL = Path("/var/spool/hylafax")
_ETC = Path("/etc/hylafax")


class HylafaxServer:
    """Needs root: HylaFAX gives up its rights itself."""

    def __init__(self) -> None:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin"
        self._programs = [shutil.which(name, path=path) for name in ("faxq", "hfaxd")]
        if None in self._programs or os.geteuid() != 0:
            missing("hylafax-server (and root)")
        self.folder = Path(tempfile.mkdtemp(prefix="rso-fax-")) / "spool"
        self.port = free_port()

    def start(self) -> None:
        """Copy the spool of the package, and run both programs on it."""
        self.folder.parent.chmod(0o755)
        subprocess.run(["cp", "-a", _SPOOL, self.folder], check=True)
        subprocess.run(["cp", "-a", f"{_ETC}/.", self.folder / "etc"], check=True)
        hosts = self.folder / "etc" / "hosts.hfaxd"
        hosts.write_text("localhost:21::\n127.0.0.1:21::\n")
        hosts.chmod(0o600)
        account = pwd.getpwnam("uucp")
        for path in (self.folder, hosts):
            os.chown(path, account.pw_uid, account.pw_gid)
        faxq, hfaxd = self._programs
        common = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._running = [
            subprocess.Popen([str(faxq), "-D", "-q", self.folder], **common),  # type: ignore[call-overload]
            subprocess.Popen([str(hfaxd), "-d", "-i", str(self.port), "-q", self.folder], **common),  # type: ignore[call-overload]
        ]
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise TimeoutError("hfaxd did not start")

    def stop(self) -> None:
        """End both and remove the spool."""
        for process in self._running:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
        subprocess.run(["pkill", "-f", f"fax.* -q {self.folder}"], check=False)
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def job(self, job: str) -> dict[str, str]:
        """A job's file in the queue."""
        lines = (self.folder / "sendq" / f"q{job}").read_text().splitlines()
        return dict(line.partition(":")[::2] for line in lines if ":" in line)

    def numbers(self) -> list[str]:
        """The numbers of all jobs in the queue."""
        names = (p.name[1:] for p in (self.folder / "sendq").glob("q[0-9]*"))
        return [self.job(name)["number"] for name in names]

    def document(self, job: dict[str, str]) -> bytes:
        """What the job sends."""
        name = next(value for key, value in job.items() if key in {"pdf", "!pdf"})
        return (self.folder / name.rpartition(":")[2]).read_bytes()

    def give_up(self, job: str) -> None:
        """Let the job fail, as after too many dials."""
        path = self.folder / "sendq" / f"q{job}"
        text = path.read_text()
        changed = ["state:8" if line.startswith("state:") else line for line in text.splitlines()]
        done = self.folder / "doneq" / path.name
        done.write_text("\n".join(changed) + "\n")
        shutil.copystat(path, done)
        owner = path.stat()
        os.chown(done, owner.st_uid, owner.st_gid)
        path.unlink()
