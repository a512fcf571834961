"""HylaFAX over its own protocol, which looks like FTP: submit a PDF, ask what became of it.

``hylafax://user:password@host:4559/+12025550100``
"""

import contextlib
import ftplib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apprise import AppriseAttachment, NotifyType
from apprise.plugins.base import NotifyBase

from rso.plugins import PermanentTransportError, TransientTransportError

__all__ = ["Hylafax", "NotifyHylafax"]

_PORT = 4559
_SECONDS = 20.0
_FINAL = {"DONE": "delivered", "FAILED": "failed"}


class Hylafax:
    """One server. Every call is a connection of its own."""

    def __init__(self, host: str, port: int, user: str, password: str = "") -> None:
        self._host, self._port = host, port
        self._user, self._password = user or "rso", password

    @contextlib.contextmanager
    def _connected(self) -> Iterator[ftplib.FTP]:
        ftp = ftplib.FTP(timeout=_SECONDS)  # noqa: S321  (HylaFAX speaks nothing else)
        try:
            ftp.connect(self._host, self._port)
            reply = ftp.sendcmd(f"USER {_word(self._user)}")
            if reply.startswith("331"):
                ftp.sendcmd(f"PASS {_word(self._password)}")
            yield ftp
        except ftplib.error_perm as exc:
            raise PermanentTransportError(f"HylaFAX answered {str(exc)[:3]}") from exc
        except (OSError, EOFError, ftplib.Error) as exc:
            raise TransientTransportError("HylaFAX cannot be reached") from exc
        finally:
            if ftp.sock is not None:
                with contextlib.suppress(OSError, EOFError, ftplib.Error):
                    ftp.quit()
            ftp.close()

    def submit(self, number: str, document: bytes, tag: str) -> str:
        """Queue a PDF for a number; returns the job's id.

        Raises:
            TransientTransportError: The server is away or busy.
            PermanentTransportError: It refuses.
        """
        with self._connected() as ftp:
            ftp.sendcmd("TYPE I")
            ftp.sendcmd("FORM PDF")
            name = self._store(ftp, document)
            job = re.search(r"jobid: (\d+)", ftp.sendcmd("JNEW"))
            if job is None:
                raise PermanentTransportError("HylaFAX made no job")
            for parameter, value in (
                ("FROMUSER", self._user),
                ("LASTTIME", "000100"),  # a day is far too late; an hour, then the next channel
                ("MAXDIALS", "6"),
                ("MAXTRIES", "3"),
                ("DIALSTRING", re.sub(r"[^\d+]", "", number)),
                ("NOTIFY", "none"),
                ("VRES", "196"),
                ("PAGEWIDTH", "209"),
                ("PAGELENGTH", "296"),
                ("JOBINFO", tag),
            ):
                ftp.sendcmd(f'JPARM {parameter} "{_word(value)}"')
            ftp.sendcmd(f'JPARM DOCUMENT "{name}"')
            ftp.sendcmd("JSUBM")
            return job[1]

    def _store(self, ftp: ftplib.FTP, document: bytes) -> str:
        """Upload a document; the preliminary reply, which ftplib would hide, names it."""
        host, port = ftp.makepasv()
        with socket.create_connection((host, port), _SECONDS) as connection:
            found = re.search(r"FILE: (\S+)", ftp.sendcmd("STOT"))
            connection.sendall(document)
        ftp.voidresp()
        if found is None:
            raise PermanentTransportError("HylaFAX named no document")
        return found[1]

    def state(self, job: str) -> str:
        """``delivered``, ``failed``, or empty while the job is open."""
        with self._connected() as ftp:
            ftp.sendcmd(f"JOB {int(job)}")
            return _FINAL.get(ftp.sendcmd("JPARM STATE")[4:].strip(), "")

    def probe(self) -> None:
        """Raise TransientTransportError unless the server answers."""
        with self._connected() as ftp:
            ftp.sendcmd("NOOP")


def _word(text: str) -> str:
    """Text that cannot end its command or its quotes."""
    return re.sub(r'["\\\x00-\x1f\x7f]', "", text)[:100]


class NotifyHylafax(NotifyBase):  # type: ignore[misc]
    """The same for Apprise: the attached PDF goes to each number of the URL's path."""

    service_name = "HylaFAX"
    service_url = "https://www.hylafax.org/"
    protocol = "hylafax"
    setup_url = "https://www.hylafax.org/"
    attachment_support = True
    templates = ("{schema}://{host}:{port}/{targets}", "{schema}://{user}@{host}/{targets}")

    def __init__(self, targets: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.targets = targets

    def server(self) -> Hylafax:
        """The server that the URL names."""
        return Hylafax(self.host, self.port or _PORT, self.user or "", self.password or "")

    def send(
        self,
        body: str,  # noqa: ARG002
        title: str = "",
        notify_type: NotifyType = NotifyType.INFO,  # noqa: ARG002
        attach: AppriseAttachment | None = None,
        **_: Any,
    ) -> bool:
        """Queue the attachments."""
        try:
            for target in self.targets:
                for file in attach or ():
                    self.server().submit(target, Path(file.path).read_bytes(), title)
        except (TransientTransportError, PermanentTransportError) as exc:
            self.logger.warning("%s", exc)
            return False
        return bool(self.targets and attach)

    def url(self, *_: Any, **__: Any) -> str:
        """The URL without its secrets."""
        return f"hylafax://{self.host}:{self.port or _PORT}/"

    @staticmethod
    def parse_url(url: str) -> dict[str, Any] | None:
        """The parts of a URL."""
        found: dict[str, Any] | None = NotifyBase.parse_url(url, verify_host=False)
        if found:
            found["targets"] = NotifyBase.split_path(found["fullpath"])
        return found
