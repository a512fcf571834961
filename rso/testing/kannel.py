"""A real Kannel for tests: bearerbox, smsbox, and a fake SMS centre that shows what arrived."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from rso.testing.fixtures import missing
from rso.testing.site import free_port

__all__ = ["KannelServer"]

_FAKE = "/usr/lib/kannel/test/fakesmsc"
_CONFIG = """
group = core
admin-port = {admin}
admin-password = admin
smsbox-port = {box}
log-level = 3

group = smsc
smsc = fake
smsc-id = FAKE
host = 127.0.0.1
port = {smsc}
connect-allow-ip = 127.0.0.1

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {port}
global-sender = RSO
log-level = 3

group = sendsms-user
username = rso
password = secret
max-messages = 10
concatenation = true

group = sms-service
keyword = default
{service}
"""


class KannelServer:
    """``kannel://rso:secret@127.0.0.1:port/{address}`` reaches it."""

    def __init__(self) -> None:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin"
        self._bearerbox = shutil.which("bearerbox", path=path)
        self._smsbox = shutil.which("smsbox", path=path)
        if not (self._bearerbox and self._smsbox and Path(_FAKE).exists()):
            missing("kannel and kannel-extras")
        self.folder = Path(tempfile.mkdtemp(prefix="rso-sms-"))
        self.port = free_port()
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, inbound: str = "") -> None:
        """Run all three.

        Args:
            inbound: A URL that is called for each message of a telephone, with Kannel's places.
        """
        service = f'get-url = "{inbound}"\nomit-empty = true' if inbound else 'text = "none"'
        self._smsc = smsc = free_port()
        config = self.folder / "kannel.conf"
        config.write_text(
            _CONFIG.format(
                admin=free_port(), box=free_port(), smsc=smsc, port=self.port, service=service
            )
        )
        self.log = self.folder / "smsc.log"
        self._run([str(self._bearerbox), str(config)], "bearerbox")
        self._wait(smsc)
        # It sends one message of its own and then shows what it receives.
        self._telephone("1 2 text nothing")
        self._run([str(self._smsbox), str(config)], "smsbox")
        self._wait(self.port)

    def _telephone(self, message: str) -> None:
        with self.log.open("ab") as log:
            self._fake = subprocess.Popen(
                [_FAKE, "-H", "127.0.0.1", "-r", str(self._smsc), "-m", "1", message],
                stdout=log,
                stderr=log,
            )
        self._running.append(self._fake)

    def send_from(self, number: str, text: str) -> None:
        """A message of a telephone to the service."""
        self._fake.kill()
        self._fake.wait(10)
        self._telephone(f"{number} 100 text {text}")

    def _run(self, command: list[str], name: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running.append(subprocess.Popen(command, stdout=log, stderr=log))

    def _wait(self, port: int) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise TimeoutError("kannel did not start")

    def arrived(self) -> str:
        """What the SMS centre has printed so far."""
        return self.log.read_text("utf-8", "replace")

    def stop(self) -> None:
        """End all three."""
        for process in reversed(self._running):
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
