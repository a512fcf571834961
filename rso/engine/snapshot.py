"""The sources as a file: receivers work from it, so they need no database."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from rso.core.quota import Quota
from rso.core.transport import Source
from rso.ledger import Ledger
from rso.ledger.site import all_sources, facility_quotas

__all__ = ["Snapshot", "SourceSnapshot", "write_snapshot"]

log = structlog.get_logger(__name__)


class Snapshot(Struct, frozen=True, kw_only=True):
    """What receivers need to know of the site."""

    sources: tuple[Source, ...] = ()
    facilities: dict[str, Quota] = {}


async def write_snapshot(ledger: Ledger, path: Path) -> None:
    """Write the ledger's sources where receivers read them; atomically, and only if changed."""
    made = Snapshot(
        sources=tuple(await all_sources(ledger)), facilities=await facility_quotas(ledger)
    )
    data = msgspec.json.encode(made)
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.chmod(0o600)
    temporary.rename(path)


class SourceSnapshot:
    """The sources as last written; a file that cannot be read leaves the last good ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._current = Snapshot()

    def current(self) -> Snapshot:
        """The current state; costs one stat when nothing changed."""
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino
            if stamp != self._stamp:
                with self._lock:
                    data = self._path.read_bytes()
                    self._current = msgspec.json.decode(data, type=Snapshot)
                    self._stamp = stamp
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as exc:
            log.error("sources cannot be read", reason=str(exc))
        return self._current

    def sources(self) -> Sequence[Source]:
        """The current sources."""
        return self.current().sources
