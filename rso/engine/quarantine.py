"""Quarantine: evidence copies of what could not be kept, with where it came from."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from rso.core.transport import Buffer, Provenance
from rso.ledger import new_id

__all__ = ["Quarantine"]

log = structlog.get_logger(__name__)

_MOST_FILES = 2_000
_MOST_COPY = 64 << 20


class Quarantine:
    """A folder of opaque files; full, it keeps what it has and takes no more.

    ``has_room`` says whether the volume can take so many bytes more without harm to what is
    received.
    """

    def __init__(self, folder: Path, has_room: Callable[[int], bool]) -> None:
        self._folder = folder
        self._has_room = has_room

    def keep(self, data: Buffer, reason: str, provenance: Provenance | None = None) -> None:
        """Copy ``data`` (at most its first 64 MB) beside a JSON file that says why."""
        # Evidence is worth much, but no failure to keep it may hide the refusal itself.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if sum(1 for _ in self._folder.iterdir()) >= 2 * _MOST_FILES:
                log.warning("quarantine is full", reason=reason)
                return
            if not self._has_room(min(len(data), _MOST_COPY)):
                log.warning("no room for a copy in quarantine", reason=reason)
                return
            path = self._folder / new_id()
            with path.with_suffix(".bin").open("xb") as file:
                file.write(memoryview(data)[:_MOST_COPY])
                file.flush()
                os.fsync(file.fileno())
            said = {"reason": reason, "provenance": provenance, "size": len(data)}
            path.with_suffix(".json").write_bytes(msgspec.json.encode(said))
        log.warning("instance refused", reason=reason)
