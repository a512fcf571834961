"""The sources as a file: receivers work from it, so they need no database."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from rso.core.errors import RsoError
from rso.core.quota import Quota
from rso.core.transport import Source
from rso.engine.context import Engine
from rso.engine.faults import Fault
from rso.ledger import Ledger
from rso.ledger.site import all_sources, facility_quotas

__all__ = ["Snapshot", "SnapshotLoop", "SourceSnapshot", "write_snapshot"]

log = structlog.get_logger(__name__)

_SECONDS = 5.0


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
    with contextlib.suppress(OSError):  # one that cannot be read is replaced
        if path.read_bytes() == data:
            return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # of a life that was killed here: perhaps another's
    temporary.write_bytes(data)
    temporary.chmod(0o600)
    temporary.rename(path)


class SnapshotLoop:
    """Writes the sources again now and then: another machine may have changed them.

    While it cannot, receivers work from the last ones; the log says so once, and /health.
    """

    def __init__(self, engine: Engine) -> None:
        self._ledger = engine.ledger
        self._path = engine.settings.data_dir / "snapshot" / "sources.json"
        self._fault = Fault(engine.settings.data_dir / "faults" / "sources")
        self._said = ""

    async def write(self) -> None:
        """Write them once, or say why not."""
        try:
            await write_snapshot(self._ledger, self._path)
        except RsoError as exc:
            self._say(str(exc))
        except OSError as exc:
            reason = f"cannot be written: {exc.strerror}"
            self._fault.say(reason)
            self._say(reason)
        else:
            self._fault.clear()
            self._said = ""

    def _say(self, reason: str) -> None:
        if reason != self._said:
            self._said = reason
            log.error("sources could not be written", reason=reason)

    async def run(self, stop: asyncio.Event) -> None:
        """Write until ``stop`` is set."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _SECONDS)
            await self.write()

    def close(self) -> None:
        """Nobody writes them any more."""
        self._fault.close()


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
