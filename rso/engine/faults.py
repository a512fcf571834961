"""What stops the taking in, told to other processes by a lock: a lock writes nothing to the volume.

A process that does not trust its volume any more cannot leave a note there. So it makes a file
while all is well, and locks that file when something fails. The lock goes with the process.
"""

import contextlib
import fcntl
import threading
from pathlib import Path

from msgspec import Struct

__all__ = ["Fault", "StandingFault", "standing_faults"]


class StandingFault(Struct, frozen=True, kw_only=True):
    """A fault that a running process has now.

    Attributes:
        where: Which spool, ``archive`` or ``intake``.
        reason: What failed; empty if even that could not be noted.
    """

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason or 'a write or sync failed; the log says which'}"


class Fault:
    """One thing of this process that may fail. Safe to use from many threads."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = file.open("wb", buffering=0)
        self._lock = threading.Lock()
        self._said = ""

    def say(self, reason: str) -> None:
        """It failed; stands until ``clear`` or the end of the process."""
        with self._lock:
            if self._file.closed or reason == self._said:
                return
            self._said = reason
            # Whoever looks holds it for a moment only.
            fcntl.flock(self._file, fcntl.LOCK_EX)
            with contextlib.suppress(OSError):
                self._file.seek(0)
                self._file.truncate()
                self._file.write(reason.encode())

    def clear(self) -> None:
        """It works again."""
        with self._lock:
            if self._said and not self._file.closed:
                self._said = ""
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Nobody can have it any more."""
        with self._lock:
            self._file.close()


def standing_faults(data_dir: Path) -> list[StandingFault]:
    """The faults of the processes of this machine.

    Raises:
        OSError: The folder cannot be read, which is one too.
    """
    found = []
    for path in sorted((data_dir / "faults").glob("*")):
        with path.open(encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(StandingFault(where=path.name, reason=file.read(500)))
    return found
